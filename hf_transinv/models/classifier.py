"""A Classifier: images in [0, 1] of any size -> logits, for any network; `open_classifier` opens one by name.

A network of timm or transformers expects images of its own size, normalised in its own way, perhaps as BGR. A
Classifier carries those facts (mean, std, channel order, input size, interpolation, label names) with the network, so
that all models take the same images. Everything before the network is differentiable, so gradients reach the pixels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transinv.config.model_args import check_model_args
from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.errors import InputError
from hf_transinv.models.batch_norm import correct_momentum
from hf_transinv.models.grad_checkpointing import enable_grad_checkpointing
from hf_transinv.models.location import locate
from hf_transinv.models.published import Published
from hf_transinv.models.timm_networks import open_timm
from hf_transinv.models.transformers_networks import open_transformers
from hf_transinv.models.weight_decay import undecayed

# ITU-R BT.601, the weights of PIL's convert("L").
_LUMINANCE = (0.299, 0.587, 0.114)
_LARGEST_SIDE = 8192
_MODES = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}  # Pillow's name: PyTorch's


class Classifier(nn.Module):
    """A network with its resizing and normalisation inside.

    Args:
        network: maps normalised images [B, C, h, w] to logits [B, num_classes], or to an output that has `logits`.
        num_classes: columns of the logits.
        mean: per channel, of pixels in [0, 1]; its length is the number of channels the network takes: 3, or 1, which
            is fed the luminance.
        std: per channel, of pixels in [0, 1].
        input_size: (h, w) that the network sees, in pixels.
        channel_order: "rgb" or "bgr", in which the network reads its channels; mean and std are in that order.
        interpolation: "bilinear", "bicubic" or "nearest", for images of another size.
        label_names: one name per class; None where they are not known.
        source: the name by which the network was opened.
        image_processor: of transformers, for a network of transformers; None: the network is timm's.
        published: the checkpoint's own preprocessing, where it is known.
        cut: how the images were cut that the checkpoint was evaluated with, before the network resizes them; None:
            it does not say; the default cut, to the shorter side of `input_size`.

    Raises:
        InputError: the number of channels is not 1 or 3; sides, mean or std are out of range; the channel order or the
            interpolation is not known; or the label names do not fit the classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, int],
        channel_order: str = "rgb",
        interpolation: str = "bilinear",
        label_names: Sequence[str] | None = None,
        source: str = "",
        image_processor: Any = None,
        published: Published | None = None,
        cut: EvaluationCut | None = None,
    ) -> None:
        super().__init__()
        if len(mean) not in (1, 3) or len(std) != len(mean):
            raise InputError(
                f"Model {source!r} takes {len(mean)} channels (std: {len(std)}); expected a network for 3 channels "
                "(RGB) or 1 (luminance). Choose another model."
            )
        sides_fit = len(input_size) == 2 and all(1 <= side <= _LARGEST_SIDE for side in input_size)
        if not sides_fit or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise InputError(
                f"Model {source!r} takes images of {tuple(input_size)} pixels, normalised with mean {tuple(mean)} and "
                f"std {tuple(std)}; expected two sides from 1 to {_LARGEST_SIDE}, finite numbers, std above 0. "
                "Correct its config.json."
            )
        if interpolation not in _MODES:
            raise InputError(f"Interpolation {interpolation!r} is not known; give one of {', '.join(_MODES)}.")
        if channel_order not in ("rgb", "bgr") or (channel_order == "bgr" and len(mean) == 1):
            raise InputError(
                f"Channel order {channel_order!r} is not known for {len(mean)} channels; give 'rgb' or, for a network "
                "of 3 channels that reads blue first, 'bgr'."
            )
        if label_names is not None and len(label_names) != num_classes:
            raise InputError(
                f"Model {source!r} has {num_classes} classes and was given {len(label_names)} label names; give one "
                f"name per class, or num_classes={len(label_names)} for a new head."
            )
        self.network = network
        self.num_classes = num_classes
        height, width = input_size
        self.input_size = (height, width)
        self.channel_order = channel_order
        self.interpolation = interpolation
        self.label_names = None if label_names is None else [str(name) for name in label_names]
        self.source = source
        self.image_processor = image_processor
        self.published = published
        self.cut, self._is_recorded = cut or EvaluationCut(min(self.input_size)), cut is not None
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    @property
    def image_size(self) -> int:
        """Side of the square images that the checkpoint was evaluated with, in pixels."""
        return self.cut.image_size

    def recorded_cut(self, asked: EvaluationCut) -> EvaluationCut:
        """How the checkpoint says that it was evaluated; what it does not say is as asked."""
        return self.cut if self._is_recorded else replace(asked, image_size=self.cut.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, h, w], float in [0, 1], any size -> logits [B, num_classes]."""
        output = self.network(self.prepare(images))
        return output if isinstance(output, Tensor) else self._logits_of(output)

    def _logits_of(self, output: Any) -> Tensor:
        logits = getattr(output, "logits", None)
        if logits is None:  # transformers' PPLCNet calls them so
            logits = getattr(output, "last_hidden_state", None)
        if logits is None or logits.shape[1:] != (self.num_classes,):
            raise InputError(
                f"Model {self.source!r} answers with a {type(output).__name__} without logits of {self.num_classes} "
                "classes. Choose an image classifier."
            )
        return logits

    def prepare(self, images: Tensor) -> Tensor:
        """Images [B, 3, h, w] in [0, 1] -> the network's input: [B, C, *input_size], normalised, at least float32.

        Raises:
            InputError: the images are not floating point, or not [B, 3, h, w].
        """
        if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"A Classifier got images of type {images.dtype} and shape {tuple(images.shape)}; expected float "
                "images [B, 3, h, w] in [0, 1]. Divide uint8 images by 255."
            )
        images = self.resized(images.to(torch.promote_types(images.dtype, torch.float32)))
        if len(self.mean) == 1:
            images = (images * images.new_tensor(_LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)
        elif self.channel_order == "bgr":
            images = images.flip(1)
        return (images - self.mean) / self.std

    def resized(self, images: Tensor) -> Tensor:
        """Images [B, 3, h, w] in [0, 1] -> [B, 3, *input_size], RGB, as the first step of `prepare`."""
        return resize(images, self.input_size, self.interpolation)

    def take_published(self) -> Published:
        """Switches to the checkpoint's own preprocessing: images of its size are no longer resized here.

        Raises:
            InputError: it is not known, or cannot be used here.
        """
        if self.published is None:
            raise InputError(
                f"How {self.source!r} was published to be evaluated is not known; use --protocol uniform."
            )
        if self.published.obstacle is not None:
            raise InputError(
                f"The preprocessing of {self.source!r} ({self.published.description}) {self.published.obstacle}. "
                "Use --protocol uniform."
            )
        assert self.published.size is not None  # where there is no obstacle
        self.input_size = self.published.size
        return self.published

    @property
    def architecture(self) -> str:
        """The network by timm's name of it, or by its class among those of transformers."""
        network: Any = self.network
        return network.pretrained_cfg["architecture"] if self.image_processor is None else type(network).__name__

    def no_weight_decay(self) -> set[str]:
        """Parameters that do not decay, beside biases and normalisation: `timm.optim.create_optimizer_v2` asks."""
        return {f"network.{name}" for name in undecayed(self.network)}

    def relabel(self, label_names: Sequence[str]) -> "Classifier":
        """Give the network these classes, in place.

        A timm network gets a new head. A network of transformers, whose heads go by many names, keeps its own, which
        must have as many classes.

        Raises:
            InputError: a network of transformers has another number of classes.
        """
        network: Any = self.network
        if self.image_processor is None:
            network.reset_classifier(len(label_names))
            network.pretrained_cfg = {**network.pretrained_cfg, "num_classes": len(label_names)}
        elif len(label_names) != self.num_classes:
            raise InputError(
                f"Model {self.source!r} has {self.num_classes} classes, not {len(label_names)}; open it for those."
            )
        self.num_classes, self.label_names = len(label_names), [str(name) for name in label_names]
        return self


def resize(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Images [B, C, h, w] in [0, 1] -> [B, C, *size], antialiased where they shrink; unchanged if the size is right.

    The result is that of Pillow and torchvision on 8-bit images, without their rounding. Bicubic interpolation
    overshoots: values are clamped to [0, 1] after each of its two passes, along the rows and along the columns.
    """
    height, width = images.shape[-2:]
    if (height, width) == tuple(size):
        return images
    mode = _MODES[interpolation]
    if interpolation == "nearest":
        return F.interpolate(images, size=size, mode=mode)
    if interpolation == "bilinear":
        shrinks = size[0] < height or size[1] < width
        return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=shrinks)
    for target in ((height, size[1]), (size[0], size[1])):
        if target != tuple(images.shape[-2:]):
            # Without antialiasing PyTorch's cubic kernel (a = -0.75) differs from Pillow's (a = -0.5).
            images = F.interpolate(images, size=target, mode=mode, align_corners=False, antialias=True).clamp(0, 1)
    return images


def open_classifier(
    name: str,
    *,
    num_classes: int | None = None,
    label_names: Sequence[str] | None = None,
    pretrained: bool = True,
    revision: str | None = None,
    architecture: str | None = None,
    input_size: int | None = None,
    model_args: Mapping[str, Any] | None = None,
    grad_checkpointing: bool = False,
) -> Classifier:
    """Opens an image classifier by name: in training mode, on the CPU, in float32.

    Args:
        name: an architecture of timm ("resnet18.a1_in1k", "wrn16_2_cifar"); a Hub id of timm or transformers
            ("user/repo", "hf-hub:user/repo@revision"); a local folder in either layout; "ARCH:FOLDER" for a folder
            that has model.safetensors and no config.json.
        num_classes: another number than the checkpoint's gives a new head; None keeps the checkpoint's.
        label_names: one name per class, instead of the checkpoint's.
        pretrained: False takes the architecture and leaves the weights.
        revision: branch, tag or commit of a Hub id.
        architecture: the timm architecture of a folder without config.json, as ARCH in "ARCH:FOLDER".
        input_size: side of the images that the network sees, in pixels; None: the checkpoint's. Position embeddings
            are resampled.
        model_args: arguments of `timm.create_model`, or fields of the config of transformers.
        grad_checkpointing: compute activations again in the backward pass instead of keeping them.

    Raises:
        InputError: the name is unknown or cannot be reached, has no safetensors weights, or they do not fit; the
            network does not take the size, an argument, or gradient checkpointing.
    """
    if num_classes is not None and num_classes < 2:
        raise InputError(f"num_classes={num_classes} was given for {name!r}; a classifier needs at least 2 classes.")
    if input_size is not None and not 1 <= input_size <= _LARGEST_SIDE:
        raise InputError(f"input_size={input_size} was given for {name!r}; expected 1 to {_LARGEST_SIDE} pixels.")
    check_model_args(model_args or {})
    location = locate(name, revision=revision, architecture=architecture, with_weights=pretrained)
    open_network = open_timm if location.is_timm else open_transformers
    opened = open_network(location, num_classes, pretrained, input_size, model_args or {})
    preprocessing = opened.preprocessing
    correct_momentum(opened.network, name)
    if grad_checkpointing:
        enable_grad_checkpointing(opened.network, name)
    return Classifier(
        opened.network,
        num_classes=opened.num_classes,
        mean=preprocessing.mean,
        std=preprocessing.std,
        input_size=preprocessing.input_size,
        channel_order=preprocessing.channel_order,
        interpolation=preprocessing.own_filter(name),
        label_names=opened.label_names if label_names is None else label_names,
        source=name,
        image_processor=opened.image_processor,
        published=preprocessing.published,
        cut=EvaluationCut.recorded((location.config or {}).get("hf_transinv")) if input_size is None else None,
    ).train()
