"""Image classifiers of transformers, from a folder in its layout: config.json, preprocessor_config.json, weights."""

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_transinv.errors import InputError
from hf_transinv.models.location import Location
from hf_transinv.models.param_budget import check_sizes, no_larger_than, stored_elements
from hf_transinv.models.processors import read_processor
from hf_transinv.models.timm_networks import is_placeholder

_logger = logging.getLogger(__name__)

_LARGEST_HEAD = 100_000_000  # 21,841 classes of 4,096 features


def open_transformers(location: Location, num_classes: int | None, pretrained: bool) -> dict[str, Any]:
    """A transformers network and what Classifier must know of it: the arguments of Classifier by name.

    Raises:
        InputError: not an image classifier, weights that do not fit, or an image processor missing or unusual.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    folder = location.folder
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        known_fields = type(config)().to_dict()
        check_sizes({key: value for key, value in config.to_dict().items() if key in known_fields}, location.name)
        label_names = _label_names(config.id2label, location.name)
        known = config.num_labels
        if num_classes not in (None, known):
            config.num_labels = num_classes
            label_names = None
        new_head = 0 if config.num_labels == known else _LARGEST_HEAD
        with no_larger_than(stored_elements(folder) if pretrained else None, location.name, new_head):
            if pretrained:
                network = _load(location, config, known)
            else:
                make = AutoModelForImageClassification.from_config
                network = make(config, dtype=torch.float32, trust_remote_code=False)
        processor = _image_processor(location, folder)
        fields = config.to_dict()
        preprocessing = read_processor(location.name, processor, fields.get("num_channels", 3), _built_for(fields))
    except InputError:
        raise
    except Exception as error:  # a wrong value in a JSON surfaces anywhere in transformers, as nearly any type
        raise InputError(
            f"Model {location.name!r} cannot be opened as an image classifier of transformers: {error}. Code that "
            "comes with a model is never run."
        ) from error
    if label_names is not None and is_placeholder(label_names):
        label_names = None
    if getattr(config, "problem_type", None) == "multi_label_classification":
        _logger.warning(
            "%s was trained for several labels per image; here its logits are read as one choice", location.name
        )
    return {
        "network": network,
        "num_classes": config.num_labels,
        "label_names": label_names,
        "image_processor": processor,
        **preprocessing,
    }


def _label_names(id2label: dict[Any, str], name: str) -> list[str] | None:
    """The classes in the order of their numbers, which a config.json need not keep: "10" stands before "2" in some.

    Raises:
        InputError: the numbers are not 0, 1, 2, ...
    """
    by_number = {int(number): label for number, label in id2label.items()}
    if sorted(by_number) != list(range(len(id2label))):
        raise InputError(
            f"The id2label of {name!r} numbers its {len(id2label)} classes {sorted(by_number)[:5]} ...; expected 0, "
            "1, 2 and so on, as its logits are. Correct its config.json."
        )
    return [by_number[number] for number in range(len(by_number))]


def _load(location: Location, config: Any, known: int) -> nn.Module:
    """The network with its weights, all of them: only a head of another size than `known` classes may be new."""
    from transformers import AutoModelForImageClassification

    network, info = AutoModelForImageClassification.from_pretrained(
        location.folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        trust_remote_code=False,
    )
    head = _head_names(config) if config.num_labels != known else set()
    problems = [f"{key} is missing" for key in sorted(info["missing_keys"]) if key not in head]
    problems += [f"{key} is not part of the network" for key in sorted(info["unexpected_keys"])]
    problems += [
        f"{key} has shape {tuple(given)}, expected {tuple(expected)}"
        for key, given, expected in sorted(info["mismatched_keys"])
        if key not in head
    ]
    problems += info["error_msgs"]
    if problems:
        raise InputError(
            f"The weights of {location.name!r} do not fit its config.json: {'; '.join(problems)}. Export the model "
            "again, or give num_classes if only its head is missing."
        )
    return network


def _head_names(config: Any) -> set[str]:
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


def _image_processor(location: Location, folder: Path) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"The image processor of {location.name!r} cannot be read ({error}). Its preprocessor_config.json says "
            "how images are resized and normalised; put it beside config.json."
        ) from error


def _built_for(config: dict[str, Any]) -> tuple[int, int] | None:
    size = config.get("image_size")
    size = (size, size) if isinstance(size, int) else size
    return tuple(size) if isinstance(size, list | tuple) and len(size) == 2 else None
