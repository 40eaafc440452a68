"""A learned augmentation of two models for the tests of it, and images for it."""

import torch
from PIL import Image
from torch import Tensor

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.learned_augmentation import LearnedAugmentation

TEACHERS = ("lab/noisy", "ema")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def panel(q: float | None = None, only: int | None = None, **fields) -> AugmentationPanel:
    """Two models with p, q and r away from the uniform start; q, or the one primitive of p, if given."""
    torch.manual_seed(0)
    made = AugmentationPanel(2, AugmentationConfig(**fields))
    with torch.no_grad():
        made.logits_r.copy_(torch.tensor([0.6, -0.3]))
        for k, (model, logit) in enumerate(zip(made.models, (0.9, -0.7), strict=True)):
            model.logits_p.normal_(generator=seeded(k + 2))
            model.logit_q.fill_(logit if q is None else torch.tensor(q).logit())
            if only is not None:
                model.logits_p.fill_(-torch.inf)
                model.logits_p[only] = 0
    return made


def build(seed: int = 3, image_column: str = "image", **fields) -> LearnedAugmentation:
    return LearnedAugmentation(panel(**fields), TEACHERS, seed=seed, image_column=image_column)


def floats(batch: int = 12, size: int = 8) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=seeded())


def bytes_(batch: int = 12, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=seeded())


def picture(images: Tensor) -> Image.Image:
    return Image.fromarray(images.permute(1, 2, 0).numpy())


def changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).flatten(1).any(1)
