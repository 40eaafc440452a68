"""The settings of TransInv that the tables favour, from which the commands start that are for it.

`multi_teacher` and `single_teacher` have them as defaults; `train` and `compare` have those of the dataclasses. They
are for TransInv's constrained form under the estimator expectation. With another form, estimator or augmentation, such
as `--objective paper`, what was not given is as the dataclasses have it, which with `--primitives paper` is the
paper's. Where images are not cropped, the tolerance is a share of the teachers' entropy.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from hf_transinv.augment.primitive_sets import SETS
from hf_transinv.experiment.field_help import default_of, flat_fields
from hf_transinv.objectives.transinv_config import TransInvConfig

RECOMMENDED: Mapping[str, Any] = MappingProxyType(
    {
        "augment": ["transinv"],
        "method": "paired",
        "inner_steps": 12,
        "primitives": ["wide"],
        "chain": 2,
        "q_init": 0.9,
        "tolerance": 0.5,
        "tolerance_relative_to": "crop",
    }
)
"""By the names of their fields; the augmentation itself among them."""
_TOLERANCES = {"crop": 0.5, "entropy": 0.25, "none": TransInvConfig.tolerance}
"""By what they are relative to."""
_SETTINGS = tuple(name for name in RECOMMENDED if name != "augment")
_Config = TypeVar("_Config")


def as_recommended(kind: type[_Config]) -> _Config:
    """A group of options with its recommended settings."""
    return kind(**{flat.name: RECOMMENDED[flat.name] for flat in flat_fields(kind) if flat.name in RECOMMENDED})


def is_recommended(values: Mapping[str, Any]) -> bool:
    """Whether TransInv is what is learned, in the form and by the estimator that the settings are for."""
    form = values["objective"], values["estimator"]
    return "transinv" in values["augment"] and form == ("constrained", "expectation")


def fitted(values: Mapping[str, Any], given: Collection[str], groups: Sequence[type]) -> dict[str, Any]:
    """The fields of a run whose defaults are the recommended ones, changed where they do not fit what was given.

    Args:
        values: by name.
        given: names of those that a YAML or a flag gave.
        groups: dataclasses of all fields.
    """
    if is_recommended(values):
        measure = values["tolerance_relative_to"]
        if "tolerance_relative_to" not in given and values["crop"] == "none":
            measure = "entropy"
        tolerance = values["tolerance"] if "tolerance" in given else _TOLERANCES[measure]
        return {**values, "tolerance_relative_to": measure, "tolerance": tolerance}
    own = {flat.name: default_of(flat) for group in groups for flat in flat_fields(group)}
    unfit = [name for name in _SETTINGS if name not in given]
    return {**values, **{name: own[name] for name in unfit}}


def in_words(values: Mapping[str, Any], given: Collection[str]) -> str:
    """On one line: what is as recommended, and what was given."""
    if not is_recommended(values):
        return f"transinv    objective {values['objective']}, estimator {values['estimator']}: nothing as recommended"
    own = ", ".join(name for name in _SETTINGS if name in given)
    shown = ", ".join(f"{name} {_text(values[name])}" for name in _SETTINGS)
    return f"transinv    as recommended: {shown}" + (f" (given: {own})" if own else "")


def _text(value: Any) -> str:
    if not isinstance(value, (list, tuple)):
        return str(value)
    names = [name for name, members in SETS.items() if tuple(value) == members]
    return " ".join(names or map(str, value))
