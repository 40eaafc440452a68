"""A network in words: what it is, how images reach it, and how that differs from its checkpoint's own way."""

import torch

from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.models.classifier import Classifier

_LEVELS = 1.5
"""By how many of 255 levels two ways of resizing may differ and still count as the same: their rounding differs."""


def describe(classifier: Classifier, image_size: int | None) -> str:
    """What a network is, and how images of a size are prepared for it.

    Args:
        classifier: the network.
        image_size: side of the images that it is given, in pixels; None: prepared as the checkpoint says.
    """
    count = sum(parameter.numel() for parameter in classifier.parameters())
    height, width = classifier.input_size
    size = f"{height} px" if height == width else f"{width}x{height} px"
    is_same = image_size is None or (image_size, image_size) == classifier.input_size
    reach = f"{size} as they are" if is_same else f"{image_size} px resized to {size} ({classifier.interpolation})"
    statistics = (classifier.mean, classifier.std)
    mean, std = (", ".join(f"{value:.3g}" for value in values.flatten().tolist()) for values in statistics)
    order = "" if classifier.channel_order == "rgb" else f", {classifier.channel_order.upper()}"
    return (
        f"{classifier.source or 'a network'}, {count / 1e6:.2f} M parameters, {classifier.num_classes} classes; "
        f"images {reach}{order}, mean {mean}, std {std}"
    )


def what_differs(classifier: Classifier, cut: EvaluationCut, keeps_size: bool) -> str | None:
    """How the default preprocessing differs from the checkpoint's own; None: not by more than rounding.

    Args:
        classifier: as it was opened.
        cut: how the data's images become squares.
        keeps_size: they are such squares already, and stay as they are.
    """
    published = classifier.published
    if published is None:
        return None
    side = cut.image_size
    filtered = "" if cut.interpolation == "bilinear" else f" ({cut.interpolation})"
    resized = f"the shorter side to {cut.shorter} px{filtered}, centre crop {side}"
    done = f"images of {side} px as they are" if keeps_size else resized
    if (side, side) != classifier.input_size:
        height, width = classifier.input_size
        done += f", then {height}x{width} ({classifier.interpolation})"
    told = f"Measured with {done}; the checkpoint's own protocol is {published.description}"
    if published.obstacle is not None:
        return f"{told}, which cannot be used here: it {published.obstacle}."
    shape = (side, side) if keeps_size else (2 * side, 4 * side)
    noise = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if published.size == classifier.input_size:
        made = (image[None].to(classifier.mean.device) / 255 for image in (cut(noise), published(noise)))
        own, theirs = map(classifier.prepare, made)
        if ((own - theirs).abs() * classifier.std * 255).max() <= _LEVELS:
            return None
    return f"{told}: --protocol published."
