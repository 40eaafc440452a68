"""only_training: one player trains, the others are frozen, and everything is as before on the way out."""

import pytest
import timm
import torch
from torch import nn

from hf_transinv.objectives.turns import only_training


def players():
    torch.manual_seed(0)
    student = timm.create_model("test_resnet", num_classes=5)
    rival = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    return {"student": student, "rival": rival}


def marks(nets):
    """Mode of every module, requires_grad of every parameter."""
    return [
        ([module.training for module in net.modules()], [parameter.requires_grad for parameter in net.parameters()])
        for net in nets.values()
    ]


def mixed():
    """Modes and flags that are not all alike."""
    nets = players()
    nets["rival"].eval()
    nets["student"].train()
    next(module for module in nets["student"].modules() if isinstance(module, nn.BatchNorm2d)).eval()
    nets["student"].get_classifier().bias.requires_grad_(False)
    nets["rival"][0].weight.requires_grad_(False)
    return nets


@pytest.mark.parametrize("player", ["student", "rival"])
def test_inside(player):
    nets = mixed()
    with only_training(player, nets):
        for name, net in nets.items():
            assert all(module.training == (name == player) for module in net.modules())
        other = nets["rival" if player == "student" else "student"]
        assert not any(parameter.requires_grad for parameter in other.parameters())
        assert any(parameter.requires_grad for parameter in nets[player].parameters())
        assert not nets["student"].get_classifier().bias.requires_grad


@pytest.mark.parametrize("player", ["student", "rival"])
def test_restored(player):
    nets = mixed()
    before = marks(nets)
    with only_training(player, nets):
        pass
    assert marks(nets) == before


def test_restored_after_an_exception():
    nets = mixed()
    before = marks(nets)
    with pytest.raises(RuntimeError, match="in mid-turn"), only_training("rival", nets):
        raise RuntimeError("in mid-turn")
    assert marks(nets) == before


def test_gradients_flow_through_a_frozen_player():
    nets = players()
    statistics = {name: value.clone() for name, value in nets["student"].named_buffers()}
    with only_training("rival", nets):
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        nets["student"](nets["rival"](images)).square().sum().backward()
    assert nets["rival"][0].weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in nets["student"].parameters())
    assert all(torch.equal(statistics[name], value) for name, value in nets["student"].named_buffers())
