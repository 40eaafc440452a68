"""Networks for images of another size than their checkpoint's.

A checkpoint is loaded strictly with its own size first. Then the library that it belongs to brings its weights to the
new size, where they depend on it:

    timm            `set_input_size` (position embeddings resampled, windows and their biases scaled with the grid);
                    a network without it is built and loaded with `img_size`, as is one without weights
    transformers    `interpolate_pos_encoding`. It is an argument of each forward pass there; here its result becomes
                    the weights of a network whose config has the new image_size, so that an export needs no argument

Every network must then answer to one image of the size. What cannot be brought to it is refused.
"""

import contextlib
import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models import get_model_traits
from torch import Tensor, nn

from hf_transinv.errors import InputError
from hf_transinv.models.opened_network import Preprocessing

_logger = logging.getLogger(__name__)

_LONGEST_SIDE = 4096  # of an image that a config.json alone asks for
_RESAMPLED = ", and resamples what its weights say of positions"
_OTHERWISE = "Leave the size out, or choose a network that takes it, such as a convolutional one."


class _Refused(Exception):
    """A network does not answer to images of a size."""


def resize_timm(network: Any, name: str, side: int, pretrained: bool, rebuild: Callable[[], Any]) -> Any:
    """A network of timm for images of another size.

    Args:
        network: as its checkpoint or architecture says; may be changed in place.
        name: the model, for errors.
        side: of the images, in pixels.
        pretrained: whether its weights are the checkpoint's, to be kept.
        rebuild: builds it with `img_size`, and loads its weights.

    Raises:
        InputError: timm cannot bring the network to that size.
    """
    check_patches(network, name, side)
    in_place = hasattr(network, "set_input_size")
    if not in_place and not get_model_traits(network).get("fixed_input_size"):
        return network
    try:
        if in_place and pretrained:
            network.set_input_size((side, side))
        else:
            network = rebuild()
    except Exception as error:  # an unfit size surfaces anywhere in a network, as nearly any type
        raise InputError(
            f"timm cannot bring {name!r} to images of {side} px: {_in_words(error.__cause__ or error)}. {_OTHERWISE}"
        ) from error
    _logger.info("%s: timm builds it for images of %d px%s", name, side, _RESAMPLED if pretrained else "")
    return network


def resize_transformers(network: Any, name: str, channels: int, side: int) -> Any:
    """A network of transformers with its weights for images of another size.

    Args:
        network: with the checkpoint's weights.
        name: the model, for errors.
        channels: of its images.
        side: of its images, in pixels.

    Raises:
        InputError: transformers cannot bring the network to that size.
    """
    check_patches(network, name, side)
    images = _noise(channels, (side, side))
    network.eval()
    expected, reason = None, ""
    try:
        expected = _logits(network, images)
    except _Refused as error:
        reason = str(error)
        with contextlib.suppress(_Refused):
            expected = _logits(network, images, interpolate_pos_encoding=True)
    if expected is not None:
        resized = _with_new_weights(network, side)
        if resized is not None and _agree(resized, images, expected):
            _logger.info("%s: transformers builds it for images of %d px%s", name, side, _RESAMPLED)
            return resized
        if not reason:  # it takes images of any size
            return network
        reason = "what is resampled in each of its forward passes cannot be written into its weights"
    raise InputError(f"transformers cannot bring {name!r} to images of {side} px: {reason}. {_OTHERWISE}")


def size_that_works(
    network: nn.Module, name: str, preprocessing: Preprocessing, built_for: tuple[int, int] | None
) -> Preprocessing:
    """The preprocessing with the size that a network of transformers answers to, where its two files disagree.

    Args:
        network: as its config.json builds it.
        name: the model, for errors.
        preprocessing: of its image processor.
        built_for: (h, w) that its config.json names; None where it names none.

    Raises:
        InputError: it answers to neither.
    """
    made, channels = preprocessing.input_size, len(preprocessing.mean)
    if built_for is None or built_for == made:
        return preprocessing
    network.eval()
    try:
        _logits(network, _noise(channels, made))
        return preprocessing
    except _Refused as error:
        reason = error
    told = f"its image processor makes images of {_by(made)}, and its network is built for {_by(built_for)}"
    if max(built_for) > _LONGEST_SIDE or not _answers(network, channels, built_for):
        raise InputError(
            f"Model {name!r} cannot be used: {told} ({reason}). Correct its preprocessor_config.json or config.json."
        ) from reason
    _logger.warning("%s: %s: it is given %s", name, told, _by(built_for))
    published = preprocessing.published
    if published is not None:
        published = replace(published, obstacle=f"makes images of {_by(made)}, which its network does not take")
    return replace(preprocessing, input_size=built_for, published=published)


def check_answers_at(network: nn.Module, name: str, channels: int, side: int) -> None:
    """Raises InputError where a network does not answer to an image of that side."""
    network.eval()
    try:
        _logits(network, _noise(channels, (side, side)))
    except _Refused as error:
        raise InputError(f"{name!r} does not take images of {side} px: {error}. {_OTHERWISE}") from error


def check_patches(network: Any, name: str, side: int) -> None:
    """Raises InputError where the patches of a network leave a rest of an image, which it would not see.

    Args:
        network: of timm or transformers.
        name: the model, for errors.
        side: of the image, in pixels.
    """
    patches, patch = getattr(network, "patch_embed", None), None
    if isinstance(patches, PatchEmbed) and not patches.dynamic_img_pad:
        patch = max(patches.patch_size)
    elif not hasattr(network, "get_classifier"):
        patch = getattr(vision_config(network.config), "patch_size", None)
    if not isinstance(patch, int) or patch < 1 or side % patch == 0:
        return
    below, above = side // patch * patch, (side // patch + 1) * patch
    near = f"{below} or {above}" if below else f"{above}"
    raise InputError(f"{name!r} cuts images into patches of {patch} px, and {side} is no multiple of it: give {near}.")


def vision_config(config: Any) -> Any:
    """The part of a configuration of transformers that describes the network for images."""
    return getattr(config, "vision_config", None) or config


def set_image_size(config: Any, side: int) -> bool:
    """Sets image_size of a configuration of transformers; False where it has none."""
    vision = vision_config(config)
    size = getattr(vision, "image_size", None)
    if size is None:
        return False
    vision.image_size = side if isinstance(size, int) else type(size)((side, side))
    return True


def _noise(channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor, **options: bool) -> Tensor:
    """What a network in eval mode answers.

    Raises:
        _Refused: an error, of any type: an unfit size surfaces anywhere in a network.
    """
    try:
        output = network(images, **options)
    except Exception as error:
        raise _Refused(_in_words(error)) from error
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    return output.last_hidden_state if logits is None else logits


def _answers(network: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    try:
        _logits(network, _noise(channels, size))
    except _Refused:
        return False
    return True


def _with_new_weights(network: Any, side: int) -> Any:
    """A network of transformers, built for another size and with the other one's weights; None: there is no such."""
    config = copy.deepcopy(network.config)
    if not set_image_size(config, side):
        return None
    try:
        resized = type(network)(config)
    except Exception:  # as of `_logits`
        _logger.debug("%s cannot be built for %d px", type(network).__name__, side, exc_info=True)
        return None
    state, wanted = network.state_dict(), resized.state_dict()
    if state.keys() != wanted.keys():
        return None
    for key, value in wanted.items():
        if value.shape != state[key].shape:
            state[key] = _resampled(network, key, value.shape, side)
            if state[key] is None:
                return None
    resized.load_state_dict(state)
    return resized.eval()


@torch.no_grad()
def _resampled(network: Any, key: str, shape: torch.Size, side: int) -> Tensor | None:
    """The position embeddings of that name for another size, by the module around them that resamples them."""
    parts = key.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        resample = getattr(network.get_submodule(".".join(parts[:depth])), "interpolate_pos_encoding", None)
        if resample is not None:
            try:
                made = resample(torch.zeros(shape).view(1, -1, shape[-1]), side, side)
            except Exception:  # as of `_logits`
                _logger.debug("%s is not resampled", key, exc_info=True)
                return None
            return made.reshape(shape).clone() if made.numel() == shape.numel() else None
    return None


def _agree(network: nn.Module, images: Tensor, expected: Tensor) -> bool:
    """Whether a network answers as it should, up to the order of sums."""
    try:
        logits = _logits(network, images)
    except _Refused:
        return False
    return torch.allclose(logits, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def _in_words(error: BaseException) -> str:
    """The text of a library's error in one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} px"
