"""Networks of timm: from its registry, from a folder in its Hub layout, from a bare weights file.

A checkpoint is loaded strictly with its own number of classes, and only then given a new head: timm would load
anything non-strictly as soon as the number of classes differs, and say so in its log alone.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from safetensors import safe_open
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from hf_transinv.errors import InputError
from hf_transinv.models.location import Location
from hf_transinv.models.param_budget import no_larger_than, stored_elements
from hf_transinv.models.published import FILTERS, Published
from hf_transinv.resolve.hub_errors import client_says

_logger = logging.getLogger(__name__)

_LONGEST_SIDE = 16_384  # before the crop
# Last layers of well-known checkpoints, besides the one the architecture itself names.
_HEADS = ("linear", "fc", "head", "head.fc", "classifier")


def open_timm(location: Location, num_classes: int | None, pretrained: bool) -> dict[str, Any]:
    """A timm network and what Classifier must know of it: the arguments of Classifier by name.

    Raises:
        InputError: there are no weights, or they do not fit the architecture.
    """
    config = location.config or {}
    try:
        label_names = _label_names(config)
        network = _create(location, num_classes, pretrained)
        preprocessing = _preprocessing(location.name, network, (config.get("model_args") or {}).get("img_size"))
    except InputError:
        raise
    except (OSError, EntryNotFoundError) as error:
        raise InputError(
            f"The weights of {location.name!r} could not be read or fetched ({client_says(error)}). Check the "
            "network, or start without them (pretrained=False)."
        ) from error
    except Exception as error:  # a wrong value in a config.json surfaces anywhere in timm, as nearly any type
        raise InputError(
            f"Model {location.name!r} cannot be loaded: {error}. Expected a checkpoint of exactly that architecture; "
            "check its config.json against its weights."
        ) from error
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
    return {
        "network": network,
        "num_classes": network.num_classes,
        "label_names": label_names,
        **preprocessing,
    }


def _create(location: Location, num_classes: int | None, pretrained: bool) -> nn.Module:
    if location.config is not None:
        if not timm.is_model(location.config["architecture"]):
            raise InputError(
                f"Model {location.name!r} is a {location.config['architecture']!r}, which timm {timm.__version__} "
                "does not know. Import the package that registers it, or upgrade timm."
            )
        if pretrained and not (location.folder / "model.safetensors").is_file():
            raise InputError(f"{location.name!r} has no model.safetensors, which timm reads; save it in one file.")
        return _create_in_bounds(location, pretrained)
    if location.folder is not None and pretrained:
        weights = location.folder / "model.safetensors"
        stored = _count_classes(location, weights)
        overlay = {"file": str(weights), "num_classes": stored}
        return timm.create_model(
            location.architecture, pretrained=True, num_classes=stored, pretrained_cfg_overlay=overlay
        )
    if not pretrained:
        return timm.create_model(location.architecture, num_classes=num_classes)
    registered = timm.get_pretrained_cfg(location.architecture)
    if registered is None or not registered.has_weights:
        raise InputError(
            f"timm has no weights for {location.name!r}. Start it without them (pretrained=False), or give a "
            "checkpoint."
        )
    return timm.create_model(location.architecture, pretrained=True)


def _create_in_bounds(location: Location, pretrained: bool) -> nn.Module:
    """The network of a folder; first without memory, so that a config far larger than the weights costs none.

    Raises:
        InputError: it is.
    """
    stored = stored_elements(location.folder) if pretrained else None
    cannot = (NotImplementedError, RuntimeError)  # on the meta device; what is wrong otherwise shows again below
    with no_larger_than(stored, location.name), torch.device("meta"), contextlib.suppress(*cannot):
        timm.create_model(f"local-dir:{location.folder}")
    with no_larger_than(stored, location.name):
        return timm.create_model(f"local-dir:{location.folder}", pretrained=pretrained)


def _count_classes(location: Location, weights: Path) -> int:
    """Rows of the last layer in a weights file of an architecture that is not written down anywhere else."""
    registered = timm.get_pretrained_cfg(location.architecture)
    named = registered.classifier if registered else None
    heads = ((named,) if isinstance(named, str) else tuple(named or ())) + _HEADS
    with safe_open(str(weights), framework="pt") as file:
        keys = {key.removeprefix("module."): key for key in file.keys()}  # noqa: SIM118 (not a dict)
        for head in heads:
            if f"{head}.weight" in keys:
                return file.get_slice(keys[f"{head}.weight"]).get_shape()[0]
    raise InputError(
        f"The number of classes of {location.name!r} cannot be read off its weights: none of {', '.join(heads)} is in "
        "model.safetensors. Add a config.json in timm's layout."
    )


def _label_names(config: dict[str, Any]) -> list[str] | None:
    names = config.get("label_names", (config.get("pretrained_cfg") or {}).get("label_names"))
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if names is not None and not isinstance(names, list):
        raise ValueError(f"label_names {names!r} is not a list")
    return None if not names or is_placeholder(names) else [str(name) for name in names]


def is_placeholder(names: Sequence[str]) -> bool:
    """True for LABEL_0, LABEL_1 ..., which transformers writes where nobody gave names."""
    return all(name == f"LABEL_{index}" for index, name in enumerate(names))


def _preprocessing(name: str, network: nn.Module, built_for: int | Sequence[int] | None) -> dict[str, Any]:
    data = resolve_model_data_config(network)
    channels, *size = data["input_size"]
    tested = resolve_model_data_config(network, use_test_size=True)
    if built_for is not None:
        # A flexible ViT built for other images than its architecture's keeps recommending the architecture's size.
        size = (built_for, built_for) if isinstance(built_for, int) else built_for
        tested = {**data, "input_size": (channels, *size)}
    statistics = {}
    for key in ("mean", "std"):
        values = tuple(map(float, data[key]))
        # timm keeps the three values of RGB when a network is built for another number of channels.
        statistics[key] = values if len(values) == channels else (sum(values) / len(values),) * channels
    return {
        **statistics,
        "input_size": tuple(map(int, size)),
        "interpolation": data["interpolation"],
        "published": _published(name, tested),
    }


def _published(name: str, data: dict[str, Any]) -> Published:
    """Timm's own validation: the size, crop and filter of its tests, up to the normalisation."""
    channels, height, width = map(int, data["input_size"])
    words = f"{height}x{width}, crop_pct {data['crop_pct']}, crop_mode {data['crop_mode']}, {data['interpolation']}"
    if not max(height, width) / float(data["crop_pct"]) <= _LONGEST_SIDE:
        raise InputError(
            f"Model {name!r} takes pictures of {words}; expected at most {_LONGEST_SIDE} pixels before the crop. "
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
    """timm's transform on one picture: uint8 [3, h, w] -> uint8 [3, H, W]; grey is given three times."""

    transform: Any
    channels: int

    def __call__(self, image: Tensor) -> Tensor:
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        pixels = self.transform(picture if self.channels == 3 else picture.convert("L"))
        return pixels.expand(3, -1, -1)
