"""Another number of processes: where nothing is drawn or normalised by process, the training is the same."""

import copy
from types import SimpleNamespace

import pytest
import torch
from timm.layers import DropPath

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import open_classifier
from hf_transinv.training.random_state import fit_processes
from tests.tiny_run import tiny_vit


def with_drop_path():
    student = tiny_vit()
    student.network.blocks[0].drop_path1 = DropPath(0.1)
    return student


def fit(network, saved=2, processes=1, sharded=False, sync_batchnorm=False):
    accelerator = SimpleNamespace(num_processes=processes, is_fsdp2=sharded)
    state = {"random": [{"torch": torch.full((3,), number)} for number in range(saved)]}
    fit_processes(state, accelerator, {"student": network}, sync_batchnorm)
    return [one["torch"][0].item() for one in state["random"]]


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    """accelerate's logger wants an Accelerator."""
    monkeypatch.setattr("hf_transinv.training.random_state.logger", SimpleNamespace(info=lambda *words: None))


def test_networks_that_draw_nothing_go_on_in_any_number_of_processes():
    assert fit(tiny_vit()) == [0] and fit(tiny_vit(), 1, 3) == [0, 0, 0]
    assert fit(tiny_vit(dropout=0.2), 2, 2) == [0, 1]  # as many: everything stays


@pytest.mark.parametrize(
    ("network", "options", "said"),
    [
        (tiny_vit(dropout=0.2), {}, "2 processes wrote it, this run has 1: launch as many, since the student draws"),
        (with_drop_path(), {}, "drop path"),
        (open_classifier("wrn10_1_cifar", num_classes=3, pretrained=False), {}, "BatchNorm without sync_batchnorm"),
        (tiny_vit(), {"sharded": True}, "cannot be asked"),
        (torch.nn.Linear(2, 2), {}, "cannot be asked"),
    ],
    ids=["dropout", "drop path", "batchnorm", "shards", "vae"],
)
def test_others_are_refused(network, options, said):
    with pytest.raises(InputError, match=said):
        fit(network, **options)


def test_asking_changes_nothing():
    network = open_classifier("wrn10_1_cifar", num_classes=3, pretrained=False)
    drawing = tiny_vit(dropout=0.2)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert fit(network, sync_batchnorm=True) == [0]
    with pytest.raises(InputError):
        fit(drawing)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
