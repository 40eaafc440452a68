"""--compile: students and teachers in compiled form, the same results, nothing compiled for an evaluation."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from hf_transinv.evaluation import evaluate
from hf_transinv.training.checkpointing import checkpoints
from tests.tiny_run import random_split, tiny_trainer


class CountingBackend:
    """Runs graphs as they were traced, and counts them."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend(monkeypatch):
    """In the place of Inductor, which needs a C++ compiler and minutes."""
    torch.compiler.reset()
    counting = CountingBackend()
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=counting))
    yield counting
    torch.compiler.reset()


def state(trainer):
    return {
        f"{name}/{key}": value
        for name, module in trainer.modules.items()
        for key, value in module.state_dict().items()
    }


def test_compiled_training_is_the_same_and_compiles_no_further(backend, tmp_path):
    plain = tiny_trainer(tmp_path / "plain", max_steps=9)
    plain.train()
    assert backend.graphs == 0
    compiled = tiny_trainer(tmp_path / "compiled", max_steps=9, compile=True)
    while compiled.step < 7:  # three augmentation turns, in which every teacher's share of a batch had two sizes
        compiled.take_turn()
    graphs = backend.graphs
    assert graphs >= 3  # the student and two teachers
    compiled.train()
    assert backend.graphs == graphs
    expected, seen = state(plain), state(compiled)
    assert seen.keys() == expected.keys()
    for name, tensor in seen.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


def test_a_resumed_run_compiles_no_more_than_one_from_the_start(backend, tmp_path):
    whole = tiny_trainer(tmp_path, max_steps=9, save_steps=4, compile=True)
    whole.train()
    graphs = backend.graphs
    torch.compiler.reset()
    resumed = tiny_trainer(tmp_path, max_steps=9, save_steps=4, compile=True)
    resumed.resume(checkpoints(tmp_path / "checkpoints")[0])
    resumed.train()
    assert graphs < backend.graphs <= 2 * graphs
    for name, tensor in state(resumed).items():
        torch.testing.assert_close(tensor, state(whole)[name], rtol=0, atol=0, msg=name)


def test_an_evaluation_compiles_nothing(backend, tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=1, compile=True)
    trainer.train()
    graphs = backend.graphs
    student = trainer.objective.players["student"]
    evaluate(student, random_split(10), corruptions=("contrast",), severities=(1,), batch_size=4, show_progress=False)
    assert backend.graphs == graphs > 0
