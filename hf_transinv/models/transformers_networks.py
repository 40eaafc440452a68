"""Image classifiers of transformers, from a folder in its layout: config.json, preprocessor_config.json, weights."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_transinv.errors import InputError
from hf_transinv.models.checkpoint_files import count_stored
from hf_transinv.models.location import Location
from hf_transinv.models.network_args import set_config_fields
from hf_transinv.models.network_size import (
    check_answers_at,
    resize_transformers,
    set_image_size,
    size_that_works,
    vision_config,
)
from hf_transinv.models.opened_network import OpenedNetwork
from hf_transinv.models.param_budget import check_sizes, no_larger_than
from hf_transinv.models.processors import read_processor
from hf_transinv.models.timm_networks import is_placeholder

_logger = logging.getLogger(__name__)

_LARGEST_HEAD = 100_000_000  # 21,841 classes of 4,096 features


def open_transformers(
    location: Location,
    num_classes: int | None,
    pretrained: bool,
    input_size: int | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> OpenedNetwork:
    """A transformers network and its preprocessing.

    Args:
        location: of its folder.
        num_classes: another number than the checkpoint's gives a new head; None keeps the checkpoint's.
        pretrained: False takes the architecture and leaves the weights.
        input_size: side of the images that it sees, in pixels; None: the checkpoint's.
        model_args: fields of its configuration.

    Raises:
        InputError: not an image classifier, weights that do not fit, an image processor missing or unusual, or a size
            or field that the network does not take.
    """
    name, folder = location.name, location.folder
    assert folder is not None  # of every network of transformers
    config = _read_config(name, folder)
    if model_args:
        _set_args(config, model_args, name)
    built_for = _built_for(vision_config(config).to_dict())
    if input_size is not None and not pretrained:
        set_image_size(config, input_size)
    label_names = _label_names(config.id2label, name)
    known = config.num_labels
    if num_classes not in (None, known):
        config.num_labels = num_classes
        label_names = None
    new_head = 0 if config.num_labels == known else _LARGEST_HEAD
    with no_larger_than(count_stored(name, folder) if pretrained else None, name, new_head):
        network = _load(name, folder, config, known) if pretrained else _initialised(name, config)
    processor = _image_processor(name, folder)
    fields = config.to_dict()
    channels = fields.get("num_channels", 3)
    preprocessing = read_processor(name, processor, channels, built_for)
    if input_size is None:
        preprocessing = size_that_works(network, name, preprocessing, built_for)
    elif {preprocessing.input_size, built_for} - {None} != {(input_size, input_size)}:
        if pretrained:
            network = resize_transformers(network, name, channels, input_size)
        preprocessing = replace(preprocessing, input_size=(input_size, input_size), published=None)
        check_answers_at(network, name, channels, input_size)
    if label_names is not None and is_placeholder(label_names):
        label_names = None
    if getattr(config, "problem_type", None) == "multi_label_classification":
        _logger.warning("%s was trained for several labels per image; here its logits are read as one choice", name)
    return OpenedNetwork(network, config.num_labels, label_names, preprocessing, processor)


def outline_transformers(location: Location, model_args: Mapping[str, Any]) -> nn.Module:
    """The network without weights or memory, on the meta device; raises as `open_transformers` does."""
    name, folder = location.name, location.folder
    assert folder is not None  # of every network of transformers
    config = _read_config(name, folder)
    if model_args:
        _set_args(config, model_args, name)
    with no_larger_than(None, name), torch.device("meta"):
        return _initialised(name, config)


def _set_args(config: Any, arguments: Mapping[str, Any], name: str) -> None:
    check_sizes(arguments, name)
    set_config_fields(config, arguments, name)


def _cannot_be_opened(name: str, error: Exception) -> InputError:
    """The error for what transformers raises: a wrong value in a JSON surfaces anywhere in it, as nearly any type."""
    return InputError(
        f"Model {name!r} cannot be opened as an image classifier of transformers: {error}. Code that comes with a "
        "model is never run."
    )


def _read_config(name: str, folder: Path) -> Any:
    """The config.json as transformers reads it.

    Raises:
        InputError: it cannot be read, or a size in it is absurd.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        known_fields = type(config)().to_dict()  # a configuration of several models cannot be made without them
    except Exception as error:
        raise _cannot_be_opened(name, error) from error
    check_sizes({key: value for key, value in config.to_dict().items() if key in known_fields}, name)
    return config


def _initialised(name: str, config: Any) -> nn.Module:
    """The network with random weights.

    Raises:
        InputError: it cannot be built.
    """
    from transformers import AutoModelForImageClassification

    try:
        return AutoModelForImageClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except InputError:  # of `no_larger_than`
        raise
    except Exception as error:
        raise _cannot_be_opened(name, error) from error


def _label_names(id2label: Any, name: str) -> list[str] | None:
    """The classes in the order of their numbers. A config.json need not keep it: in some, "10" comes before "2".

    Raises:
        InputError: there are no classes, or their numbers are not 0, 1, 2, ...
    """
    if not isinstance(id2label, dict):
        raise InputError(f"Model {name!r} has no classes, so it is no image classifier. Choose another model.")
    by_number = {int(number): label for number, label in id2label.items()}
    if sorted(by_number) != list(range(len(id2label))):
        raise InputError(
            f"The id2label of {name!r} numbers its {len(id2label)} classes {sorted(by_number)[:5]} ...; expected 0, "
            "1, 2 and so on, as its logits are. Correct its config.json."
        )
    return [by_number[number] for number in range(len(by_number))]


def _load(name: str, folder: Path, config: Any, known: int) -> nn.Module:
    """The network with its weights, all of them: only a head of another size than `known` classes may be new.

    Raises:
        InputError: it cannot be built, or the weights do not fit.
    """
    from transformers import AutoModelForImageClassification

    try:
        network, info = AutoModelForImageClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except InputError:  # of `no_larger_than`
        raise
    except Exception as error:
        raise _cannot_be_opened(name, error) from error
    head = head_names(config) if config.num_labels != known else set()
    problems = [f"{key} is missing" for key in sorted(info["missing_keys"]) if key not in head]
    problems += [f"{key} is not part of the network" for key in sorted(info["unexpected_keys"])]
    mismatched = [_mismatch(entry, network) for entry in sorted(info["mismatched_keys"])]
    problems += [f"{key} has {problem}" for key, problem in mismatched if key not in head]
    problems += info["error_msgs"]
    if problems:
        raise InputError(
            f"The weights of {name!r} do not fit its config.json: {'; '.join(problems)}. Export the model again, or "
            "give num_classes if only its head is missing."
        )
    return network


def _mismatch(entry: Any, network: nn.Module) -> tuple[str, str]:
    """Name and shapes of a tensor that does not fit; of transformers 4 only its name is had."""
    if isinstance(entry, str):
        return entry, f"another shape than expected, {tuple(network.state_dict()[entry].shape)}"
    key, given, expected = entry
    return key, f"shape {tuple(given)}, expected {tuple(expected)}"


def head_names(config: Any) -> set[str]:
    """Names of the tensors whose shape depends on the number of classes."""
    from transformers import AutoModelForImageClassification

    shapes = []
    for extra in (0, 1):
        varied = copy.deepcopy(config)
        varied.num_labels = config.num_labels + extra
        with torch.device("meta"):
            network = AutoModelForImageClassification.from_config(varied, trust_remote_code=False)
        shapes.append({name: tensor.shape for name, tensor in network.state_dict().items()})
    return {name for name, shape in shapes[0].items() if shape != shapes[1][name]}


def _image_processor(name: str, folder: Path) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as of `_cannot_be_opened`
        raise InputError(
            f"The image processor of {name!r} cannot be read ({error}). Its preprocessor_config.json says how images "
            "are resized and normalised; put it beside config.json."
        ) from error


def _built_for(config: dict[str, Any]) -> tuple[int, int] | None:
    """The (h, w) that a configuration names as image_size, in pixels; None where it names none."""
    size = config.get("image_size")
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        return None
    return sides[0], sides[1]
