"""The objectives as they are run: two processes are one, two micro-batches are one batch, a resumed run goes on."""

import pytest
import torch

from hf_transinv.record import read_metrics
from hf_transinv.training.tracked import scalars
from tests.launching import TWO_PROCESSES, succeed
from tests.objectives.trained import METHODS, trainer_of
from tests.tiny_run import tensors_of

ONE_OF_TWO = """
import sys
from pathlib import Path
import torch
from tests.objectives.trained import METHODS, trainer_of
from tests.tiny_run import tensors_of

folder = Path(sys.argv[1])
ends = {}
for method in METHODS:
    trainer = trainer_of(method, folder / method)
    assert trainer.accelerator.num_processes == 2
    trainer.train()
    ends[method] = tensors_of(trainer)
torch.save(ends, folder / f"rank{trainer.accelerator.process_index}.pt")
trainer.accelerator.wait_for_everyone()
trainer.accelerator.end_training()
"""

# Its bounds are millionths of a nat, and multipliers follow shares of a thousandth, three times over.
ROUNDING = {"transinv_relative": 2e-4}


def farthest(one, two):
    """The largest difference of any number of the state."""
    assert one.keys() == two.keys()
    return max((one[name].double() - two[name].double()).abs().max().item() for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each method's start and end in this process, and its folder."""
    folder, found = tmp_path_factory.mktemp("alone"), {}
    for method in METHODS:
        trainer = trainer_of(method, folder / method)
        start = tensors_of(trainer)
        trainer.train()
        found[method] = (start, tensors_of(trainer), folder / method)
    return found


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    (folder / "main.py").write_text(ONE_OF_TWO)
    succeed(TWO_PROCESSES, folder / "main.py", folder, cwd=folder, ACCELERATE_USE_CPU="true")
    return folder, [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_one(method, alone, two_processes):
    start, end, folder = alone[method]
    first, second = (ends[method] for ends in two_processes[1])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert farthest(end, first) < ROUNDING.get(method, 2e-6) < 1e-3 < farthest(start, end)
    one, two = (
        [scalars({}, line, (), ()) for line in read_metrics(path / "metrics.jsonl")]
        for path in (folder, two_processes[0] / method)
    )
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"images_per_second"}:
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("method", METHODS)
def test_two_micro_batches_are_one(method, alone, tmp_path):
    trainer = trainer_of(method, tmp_path, gradient_accumulation_steps=2)
    trainer.train()
    assert farthest(alone[method][1], tensors_of(trainer)) < ROUNDING.get(method, 2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_goes_on_to_the_bit(method, alone):
    _, end, folder = alone[method]
    trainer = trainer_of(method, folder)
    trainer.resume(folder / "checkpoints" / "step_00000002")
    trainer.train()
    assert farthest(end, tensors_of(trainer)) == 0
