"""Arguments of a network as users write them, key=value, and those that are other flags' business."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hf_transinv.errors import InputError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
"""1e-3: a number to everyone but YAML 1.1, which wants 1.0e-3."""

_CLASSES = "the classes are those of the data"
_CHANNELS = "the network keeps the channels of its checkpoint"
_SIZE = "give student_size"
_WEIGHTS = "give student and student_init"
_CHECKPOINTING = "give grad_checkpointing"
_PRECISION = "give mixed_precision to accelerate launch"
_FEATURES = "the student is a classifier, whose features are not asked for"
_ELSEWHERE = {
    **dict.fromkeys(("num_classes", "num_labels", "id2label", "label2id"), _CLASSES),
    **dict.fromkeys(("in_chans", "num_channels"), _CHANNELS),
    **dict.fromkeys(("img_size", "image_size", "input_size"), _SIZE),
    **dict.fromkeys(("model_name", "model_type", "architecture", "checkpoint_path", "cache_dir"), _WEIGHTS),
    **dict.fromkeys(("kwargs_filter", "pruned", "custom_load"), _WEIGHTS),
    **dict.fromkeys(("grad_checkpointing", "gradient_checkpointing"), _CHECKPOINTING),
    **dict.fromkeys(("dtype", "torch_dtype", "device"), _PRECISION),
    **dict.fromkeys(("features_only", "feature_cfg", "out_indices"), _FEATURES),
}
"""Arguments that would contradict a flag or the checkpoint, and what to do instead."""


def parse_model_args(given: Sequence[str]) -> dict[str, Any]:
    """key=value, ... -> values by key, each read as a YAML scalar.

    Args:
        given: such as "drop_rate=0.1".

    Raises:
        InputError: not of that form, a key that occurs twice or is set by another flag, no scalar.
    """
    values: dict[str, Any] = {}
    for text in given:
        key, equals, written = text.partition("=")
        if not equals or not _NAME.fullmatch(key):
            raise InputError(f"model_args {text!r}: expected key=value, such as drop_rate=0.1")
        if key in values:
            raise InputError(f"model_args: {key} is given twice")
        values[key] = _scalar(key, written)
    check_model_args(values)
    return values


def check_model_args(values: Mapping[str, Any]) -> None:
    """Raises InputError for an argument that another flag or the checkpoint sets."""
    for key in values:
        instead = _WEIGHTS if key.startswith("pretrained") else _ELSEWHERE.get(key)
        if instead is not None:
            raise InputError(f"model_args cannot set {key}: {instead}")


def _scalar(key: str, written: str) -> Any:
    if _EXPONENT.fullmatch(written):
        return float(written)
    try:
        value = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise InputError(f"model_args {key}={written}: not a value of YAML") from error
    if not isinstance(value, bool | int | float | str):
        raise InputError(f"model_args {key}={written}: expected a number, true, false or a word")
    return value
