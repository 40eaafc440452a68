"""Which turns wait for a CUDA device: what is said of a device that waits where we let it, and a real one."""

import os
import warnings

import pytest
import torch
from accelerate import Accelerator

from hf_transinv.benchmark import cuda_waits
from hf_transinv.benchmark.runners import PLAIN, entries
from hf_transinv.formats.json_lines import read_json_lines
from hf_transinv.training.nan_guard import LossMonitor
from tests.benchmark.test_launches import ENTRIES, TINY
from tests.launching import PYTHON, REPOSITORY, succeed


@pytest.fixture
def device(monkeypatch):
    """A CPU on which reading a number waits, as torch says it of CUDA; how often it did in each mode."""
    modes, read = ["default"], torch.Tensor.item
    seen = {"default": 0, "warn": 0, "error": 0}

    def item(tensor):
        seen[modes[-1]] += 1
        if modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation (Triggered internally)")
        if modes[-1] == "warn":
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=2)
        return read(tensor)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.Tensor, "item", item)
    yield seen
    assert modes[-1] == "default"


def test_a_wait_is_found_with_the_line_of_our_code(device):
    """On the CPU each turn's losses are looked at, one by one."""
    found = cuda_waits.waits_of(entries(TINY)[1], TINY, Accelerator(cpu=True))
    assert device["warn"] > 0 and device["error"] == 1
    assert list(found["turns"]) == ["student", "augmentation"]
    for places in found["turns"].values():
        (place,) = (place for place in places if place.startswith("training/nan_guard.py:"))
        assert "LossMonitor.add" in place
    assert found["error"].startswith("training/nan_guard.py:") and found["error"] in found["turns"]["student"]


def test_turns_without_a_wait_have_none(device, monkeypatch):
    add = LossMonitor.add

    def add_unseen(monitor, *given):
        monitor.looks_at_once = False
        add(monitor, *given)

    monkeypatch.setattr(LossMonitor, "add", add_unseen)
    plain = entries(TINY)[0]
    assert plain.title == PLAIN
    found = cuda_waits.waits_of(plain, TINY, Accelerator(cpu=True))
    assert found == {"turns": {"student": {}}, "error": None}


def test_another_error_is_no_wait(device, monkeypatch):
    def step(players, player, steps):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("hf_transinv.training.players.Players.step", step)
    with pytest.raises(RuntimeError, match="out of luck"):
        cuda_waits.waits_of(entries(TINY)[0], TINY, Accelerator(cpu=True))


# On a real device


@pytest.fixture(scope="module")
def on_cuda(tmp_path_factory) -> dict[str, dict]:
    """What a process of its own found, as the accelerator of this one is on the CPU."""
    folder = tmp_path_factory.mktemp("waits")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    program = REPOSITORY / "hf_transinv" / "commands" / "gpu_figures.py"
    succeed(PYTHON, program, "waits", folder / "waits.jsonl", cwd=folder, CUDA_VISIBLE_DEVICES=visible)
    return {line["figure"]: line for line in read_json_lines(folder / "waits.jsonl")}


@pytest.mark.cuda
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_turn_waits_for_a_cuda_device(on_cuda, entry):
    found = on_cuda[entry.title]
    assert not any(found["turns"].values()) and found["error"] is None, found
