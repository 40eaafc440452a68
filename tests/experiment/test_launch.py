"""What a run does to its process before it starts."""

import platform
import subprocess
import sys

import pytest

from tests.launching import environment

# Large tensors, made and freed: how often the system had to map a page for them.
FAULTS = """
import resource
import torch
from hf_transinv.config import OutputConfig
from hf_transinv.experiment.launch import start_accelerator

start_accelerator(OutputConfig())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(32):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 2**26 // 4096  # of one tensor


def page_faults(folder, **variables):
    command = [sys.executable, "-c", FAULTS]
    env = {"ACCELERATE_USE_CPU": "true", **environment(folder, **variables)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_freed_memory_is_kept_for_the_next_turn(tmp_path):
    assert page_faults(tmp_path) < 8 * PAGES
    # The user's word counts.
    assert page_faults(tmp_path, MALLOC_MMAP_THRESHOLD_="131072") > 31 * PAGES
