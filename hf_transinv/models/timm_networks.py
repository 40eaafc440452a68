"""Networks of timm: from its registry, from a folder in its Hub layout, from a bare weights file.

A checkpoint is loaded strictly with its own number of classes, and only then given a new head. timm itself would load
it non-strictly as soon as the number of classes differs, and say so in its log alone.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from safetensors import SafetensorError, safe_open
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor

from hf_transinv.errors import InputError
from hf_transinv.models.checkpoint_files import count_stored
from hf_transinv.models.location import Location
from hf_transinv.models.network_args import check_timm_args
from hf_transinv.models.network_size import check_answers_at, resize_timm
from hf_transinv.models.opened_network import OpenedNetwork, Preprocessing
from hf_transinv.models.param_budget import check_sizes, no_larger_than
from hf_transinv.models.published import FILTERS, Published
from hf_transinv.resolve.hub_errors import client_says

_logger = logging.getLogger(__name__)

_LONGEST_SIDE = 16_384  # before the crop
# Last layers of well-known checkpoints, besides the one the architecture itself names.
_HEADS = ("linear", "fc", "head", "head.fc", "classifier")
_NUMBER = re.compile(r"[0-9]{1,9}")


def open_timm(
    location: Location,
    num_classes: int | None,
    pretrained: bool,
    input_size: int | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> OpenedNetwork:
    """A timm network and its preprocessing.

    Args:
        location: of its architecture or folder.
        num_classes: another number than the checkpoint's gives a new head; None keeps the checkpoint's.
        pretrained: False takes the architecture and leaves the weights.
        input_size: side of the images that it sees, in pixels; None: the checkpoint's.
        model_args: of `timm.create_model`.

    Raises:
        InputError: there are no weights, they do not fit the architecture, a value of the config.json is wrong, or the
            network does not take the size or an argument.
    """
    config = location.config or {}
    label_names = _label_names(location.name, config)
    arguments = dict(model_args or {})
    if arguments:
        _check_args(location, arguments)
    create = partial(_create, location, num_classes, pretrained)
    network = create(arguments)
    preprocessing = _preprocessing(location.name, network, (config.get("model_args") or {}).get("img_size"))
    if input_size is not None and preprocessing.input_size != (input_size, input_size):
        rebuild = partial(create, {**arguments, "img_size": input_size})
        network = resize_timm(network, location.name, input_size, pretrained, rebuild)
        preprocessing = replace(preprocessing, input_size=(input_size, input_size), published=None)
        check_answers_at(network, location.name, len(preprocessing.mean), input_size)
    if num_classes is not None and num_classes != network.num_classes:
        network.reset_classifier(num_classes)
        label_names = None
    if network.num_classes < 1:
        raise InputError(f"Model {location.name!r} has no classifier; give num_classes for a new one.")
    if label_names is not None and len(label_names) != network.num_classes:
        _logger.warning(
            "%s: %d label names for %d classes: left out", location.name, len(label_names), network.num_classes
        )
        label_names = None
    return OpenedNetwork(network, network.num_classes, label_names, preprocessing)


def outline_timm(location: Location, model_args: Mapping[str, Any]) -> Any:
    """The network without weights or memory, on the meta device; raises as `open_timm` does."""
    if model_args:
        _check_args(location, model_args)
    with torch.device("meta"):
        return _create(location, None, False, model_args)


def _check_args(location: Location, arguments: Mapping[str, Any]) -> None:
    check_sizes(arguments, location.name)
    check_timm_args(location.name, location.architecture or f"local-dir:{location.folder}", arguments)


def _create(location: Location, num_classes: int | None, pretrained: bool, arguments: Mapping[str, Any]) -> Any:
    """The network: a Module with timm's attributes (num_classes, pretrained_cfg, reset_classifier)."""
    name, folder, architecture = location.name, location.folder, location.architecture
    if location.config is not None:
        assert folder is not None  # where the config.json is
        return _create_from_config(name, folder, location.config["architecture"], pretrained, arguments)
    assert architecture is not None  # of every location without a config.json
    if not pretrained:
        return _make(name, architecture, num_classes=num_classes, **arguments)
    registered = timm.get_pretrained_cfg(architecture)
    if folder is not None:
        weights = folder / "model.safetensors"
        stored = _count_classes(name, weights, registered.classifier if registered else None)
        overlay = {"file": str(weights), "num_classes": stored}
        options: dict[str, Any] = {"num_classes": stored, "pretrained_cfg_overlay": overlay}
        return _make(name, architecture, pretrained=True, **options, **arguments)
    if registered is None or not registered.has_weights:
        raise InputError(
            f"timm has no weights for {name!r}. Start it without them (pretrained=False), or give a checkpoint."
        )
    return _make(name, architecture, pretrained=True, **arguments)


def _create_from_config(
    name: str, folder: Path, architecture: Any, pretrained: bool, arguments: Mapping[str, Any]
) -> Any:
    """The network of a folder with a config.json.

    It is built without memory first (on the meta device), so that a config far larger than the weights costs none.
    """
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise InputError(
            f"Model {name!r} is a {architecture!r}, which timm {timm.__version__} does not know. Import the package "
            "that registers it, or upgrade timm."
        )
    if pretrained and not (folder / "model.safetensors").is_file():
        raise InputError(f"{name!r} has no model.safetensors, which timm reads; save it in one file.")
    stored = count_stored(name, folder) if pretrained else None
    with no_larger_than(stored, name), torch.device("meta"):
        try:
            timm.create_model(f"local-dir:{folder}", **arguments)
        except InputError:  # it grows too large
            raise
        except Exception:  # it cannot be built without memory, or at all: what is wrong then shows again below
            _logger.debug("%s cannot be built on the meta device", name, exc_info=True)
    with no_larger_than(stored, name):
        return _make(name, f"local-dir:{folder}", pretrained=pretrained, **arguments)


def _make(name: str, model: str, **options: Any) -> Any:
    """`timm.create_model`, whose errors are said to be the checkpoint's.

    Raises:
        InputError: whatever timm raises: a wrong value in a config.json surfaces anywhere in it, as nearly any type.
    """
    try:
        return timm.create_model(model, **options)
    except InputError:  # of `no_larger_than`
        raise
    except (OSError, EntryNotFoundError) as error:
        raise InputError(
            f"The weights of {name!r} could not be read or fetched ({client_says(error)}). Check the network, or "
            "start without them (pretrained=False)."
        ) from error
    except Exception as error:
        raise InputError(
            f"Model {name!r} cannot be loaded: {error}. Expected a checkpoint of exactly that architecture; check its "
            "config.json against its weights."
        ) from error


def _count_classes(name: str, weights: Path, head_of_architecture: str | Sequence[str] | None) -> int:
    """Rows of the last layer in a weights file whose number of classes is not written down anywhere else."""
    named = (head_of_architecture,) if isinstance(head_of_architecture, str) else tuple(head_of_architecture or ())
    heads = named + _HEADS
    try:
        with safe_open(str(weights), framework="pt") as file:
            shapes = {
                key.removeprefix("module."): file.get_slice(key).get_shape()
                for key in file.keys()  # noqa: SIM118 (not a dict)
            }
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights of {name!r} cannot be loaded: {error}. Fetch the file again.") from error
    rows: list[int] = next((shapes[f"{head}.weight"][:1] for head in heads if f"{head}.weight" in shapes), [])
    if not rows:
        raise InputError(
            f"The number of classes of {name!r} cannot be read off its weights: none of {', '.join(heads)} is in "
            "model.safetensors. Add a config.json in timm's layout."
        )
    return rows[0]


def _label_names(name: str, config: dict[str, Any]) -> list[str] | None:
    names = config.get("label_names", (config.get("pretrained_cfg") or {}).get("label_names"))
    if isinstance(names, dict):
        if not all(_NUMBER.fullmatch(key) for key in names):
            raise InputError(
                f"The config.json of {name!r} has label_names by {list(names)[:3]}; expected a list, or names by "
                "numbers. Correct it."
            )
        names = [names[key] for key in sorted(names, key=int)]
    if names is not None and not isinstance(names, list):
        raise InputError(f"The config.json of {name!r} has label_names {names!r}; expected a list. Correct it.")
    return None if not names or is_placeholder(names) else [str(label) for label in names]


def is_placeholder(names: Sequence[str]) -> bool:
    """True for LABEL_0, LABEL_1 ..., which transformers writes where no names were given."""
    return all(name == f"LABEL_{index}" for index, name in enumerate(names))


def _preprocessing(name: str, network: Any, built_for: Any) -> Preprocessing:
    """What the pretrained_cfg says.

    Args:
        name: the model, for errors.
        network: of timm.
        built_for: img_size of the config.json's model_args; None where there is none.
    """
    data = resolve_model_data_config(network)
    _check_data(name, data)
    channels, *size = data["input_size"]
    tested = resolve_model_data_config(network, use_test_size=True)
    if built_for is not None:
        # A flexible ViT built for other images than its architecture's keeps recommending the architecture's size.
        size = [built_for, built_for] if isinstance(built_for, int) else built_for
        tested = {**data, "input_size": (channels, *size) if isinstance(size, list | tuple) else size}
    _check_data(name, tested)
    statistics = []
    for key in ("mean", "std"):
        values = tuple(map(float, data[key]))
        # timm keeps the three values of RGB when a network is built for another number of channels.
        statistics.append(values if len(values) == channels else (sum(values) / len(values),) * channels)
    mean, std = statistics
    height, width = map(int, size)
    return Preprocessing(mean, std, (height, width), data["interpolation"], published=_published(name, tested))


def _check_data(name: str, data: dict[str, Any]) -> None:
    """Raises InputError for fields of a pretrained_cfg that are not of their kind; timm passes them on as they are."""
    size = data["input_size"]
    checks = {
        "input_size": len(_numbers(size)) == 3 and min(_numbers(size)) >= 1,
        "mean": len(_numbers(data["mean"])) > 0,
        "std": len(_numbers(data["std"])) > 0,
        "crop_pct": len(_numbers([data["crop_pct"]])) == 1 and data["crop_pct"] > 0,
        "crop_mode": isinstance(data["crop_mode"], str),
        "interpolation": isinstance(data["interpolation"], str),
    }
    for key, is_right in checks.items():
        if not is_right:
            raise InputError(
                f"Model {name!r} cannot be loaded: its {key} is {data[key]!r}. Correct the pretrained_cfg in its "
                "config.json."
            )


def _numbers(values: Any) -> Sequence[float]:
    """The values themselves if they are a list of finite numbers, else nothing."""
    are_numbers = isinstance(values, list | tuple) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )
    return values if are_numbers else ()


def _published(name: str, data: dict[str, Any]) -> Published:
    """Timm's own validation: the size, crop and filter of its tests, up to the normalisation."""
    channels, height, width = map(int, data["input_size"])
    words = f"{height}x{width}, crop_pct {data['crop_pct']}, crop_mode {data['crop_mode']}, {data['interpolation']}"
    if not max(height, width) / float(data["crop_pct"]) <= _LONGEST_SIDE:
        raise InputError(
            f"Model {name!r} takes images of {words}; expected at most {_LONGEST_SIDE} pixels before the crop. "
            "Correct the pretrained_cfg in its config.json."
        )
    if data["interpolation"] not in FILTERS.values():
        raise InputError(
            f"Model {name!r} resizes by {data['interpolation']!r}; expected one of {', '.join(FILTERS.values())}. "
            "Correct the pretrained_cfg in its config.json."
        )
    transform = create_transform(**data, is_training=False, normalize=False)
    return Published(f"timm's {words}", (height, width), _TimmTransform(transform, channels))


@dataclass(frozen=True)
class _TimmTransform:
    """timm's transform of one image: uint8 [3, h, w] -> uint8 [3, H, W]; a grey channel is repeated three times."""

    transform: Any
    channels: int

    def __call__(self, image: Tensor) -> Tensor:
        pil_image = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        pixels = self.transform(pil_image if self.channels == 3 else pil_image.convert("L"))
        return pixels.expand(3, -1, -1)
