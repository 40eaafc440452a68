"""Batches in double precision for comparisons with slow references, whole and in parts."""

import torch
from torch import nn

from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.turns import Batch
from tests.objectives.tiny import pixels, seeded

CLASSES = 5


def wide_classifier(classes, size=8, seed=0):
    """Another architecture than `tiny.classifier`, likewise without BatchNorm."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, 16), nn.GELU(), nn.Linear(16, classes))
    nn.init.normal_(network[3].weight, std=0.6)
    return Classifier(network, num_classes=classes, mean=(0.5,) * 3, std=(0.2,) * 3, input_size=(size, size))


def batch_of(size, variants=1, image_size=8, part=slice(None), scale=1):
    """Random images; the rows of `part`, for one of `scale` processes."""
    images = [pixels(size, image_size, seed).double()[part] for seed in range(10, 10 + variants)]
    return Batch(images[0], (torch.arange(size) % CLASSES)[part], size, scale, tuple(images[1:]))


def losses_of(objective, batch, draws, player="student"):
    return objective.loss(player, objective.players, batch, draws)


def draws_of(objective, batch, player="student"):
    return objective.draw(player, batch.images.shape, seeded(20))


def check_parts_add_up(objective, size=8, **batch):
    """Two micro-batches, and the mean over two processes, have the losses and the gradients of the whole."""
    for player, module in objective.players.items():
        parameters = [p for p in module.parameters() if p.requires_grad]
        whole = batch_of(size, **batch)
        draws = draws_of(objective, whole, player)
        expected = losses_of(objective, whole, draws, player)
        gradients = torch.autograd.grad(expected["total"], parameters)
        assert any(gradient.abs().max() > 1e-6 for gradient in gradients)
        for scale in (1, 2):
            summed, slopes = {}, [torch.zeros_like(p) for p in parameters]
            for part in (slice(0, 3), slice(3, size)):
                found = losses_of(objective, batch_of(size, part=part, scale=scale, **batch), draws[part], player)
                for name, value in found.items():
                    summed[name] = summed.get(name, 0.0) + value.detach() / scale
                for slope, more in zip(slopes, torch.autograd.grad(found["total"], parameters), strict=True):
                    slope += more / scale
            torch.testing.assert_close(summed, {name: value.detach() for name, value in expected.items()})
            torch.testing.assert_close(slopes, list(gradients))
