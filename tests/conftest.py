"""Several workers share the cores (pytest-xdist): one thread for each. Tests of a device are skipped without one."""

import pytest
import torch

torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked cuda needs a CUDA device; `transinv gpu-check` runs all of it."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
