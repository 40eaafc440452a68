"""Small real classifiers and panels for the tests of the objectives."""

import torch
from torch import nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.models import Teacher
from hf_transinv.models.classifier import Classifier

PRIMITIVES = ("contrast_brightness", "geometric", "gaussian_noise")
K = len(PRIMITIVES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch, size=8, seed=0):
    return torch.rand(batch, 3, size, size, generator=seeded(seed))


def classifier(classes, size=8, seed=0):
    """Without BatchNorm, so that micro-batches add up exactly; with answers that are sure enough to be moved."""
    torch.manual_seed(seed)
    head = nn.Linear(4 * (size // 2) ** 2, classes)
    nn.init.normal_(head.weight, std=0.6)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), head)
    return Classifier(network, num_classes=classes, mean=(0.5,) * 3, std=(0.2,) * 3, input_size=(size, size))


def teacher(classes, size=8, seed=1):
    return Teacher(classifier(classes, size, seed), name=f"teacher {seed}")


def panel(models, primitives=PRIMITIVES, **fields):
    """Away from the start: p, q, r and the multipliers all different."""
    torch.manual_seed(3)
    built = AugmentationPanel(models, AugmentationConfig(primitives, PrimitiveConfig(init_scale=0.5), **fields))
    generator = seeded(4)
    with torch.no_grad():
        built.logits_r.normal_(generator=generator)
        built.multipliers.uniform_(0.5, 2, generator=generator)
        for model in built.models:
            model.logits_p.normal_(generator=generator)
            model.logit_q.normal_(generator=generator)
    return built
