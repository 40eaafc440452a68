"""Which settings of a run had an effect: the others are not on its card.

A run's configuration has a field for every option of every method. An option is left out if it belongs to a method or
policy that the run did not use, if it needs another one that was off, or if it is off itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from hf_transinv.augment.policies import CorruptionConfig, PolicyConfig
from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.config import DataConfig, MixingConfig, OutputConfig, StudentConfig, TrainConfig
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.registry import LEARNED, METHODS
from hf_transinv.objectives.turns import AUGMENTATION

Values = Mapping[str, Any]

# Where a run wrote to, what it reported to and how often: of no use to a reader of its card.
_PRIVATE = (
    *("output_dir", "resume_from", "report_to", "push_to_hub", "private", "hub_revision", "push_every", "license"),
    *("logging_steps", "save_steps", "save_total_limit", "ddp_timeout"),
)
_OF_POLICY = {
    "autoaugment_policy": "autoaugment",
    "augmix_severity": "augmix",
    "strong_magnitude": "strong",
    "cutout_size": "cutout",
    "grayscale_probability": "grayscale",
    "jitter_bias": "color_jitter",
    **{f"randaugment_{option}": "randaugment" for option in ("ops", "magnitude", "space")},
}
_KNOWN: dict[str, type[Objective]] = {**METHODS, **LEARNED}
_GROUPS: tuple[type, ...] = (
    *(DataConfig, StudentConfig, TrainConfig, MixingConfig, OutputConfig, PolicyConfig, CorruptionConfig),
    *(group for method in _KNOWN.values() for group in method.configs),
)
_FIELDS: dict[str, "Field[Any]"] = {field.name: field for group in _GROUPS for field in fields(group)}


def _has(option: str, *expected: Any) -> Callable[[Values], bool]:
    """Whether an option has one of these values; without any, whether it is on. One that is not recorded counts."""
    return lambda config: option not in config or (config[option] in expected if expected else bool(config[option]))


_NEEDS: dict[str, Callable[[Values], bool]] = {
    "shuffle_buffer": _has("streaming"),
    "eval_crop_pct": _has("image_size"),
    "interpolation": _has("image_size"),
    "eval_severities": lambda config: config.get("eval_corruptions") not in ([], ["none"]),
    **{field.name: _has("corruption") for field in fields(CorruptionConfig)},
    **{f"gumbel_{option}": _has("estimator", "gumbel") for option in ("temperature", "hard")},
    **{option: _has("objective", "constrained") for option in ("tolerance", "multipliers", "dual_learning_rate")},
    "r_entropy": _has("selection", "r"),
}


def used_settings(config: Values, methods: set[str], policies: set[str]) -> dict[str, Any]:
    """The part of a run's configuration that had an effect. A field that this version does not know is kept.

    Args:
        config: of run.json.
        methods: names of what the student minimised, and of the learned augmentation.
        policies: names of the fixed augmentations.
    """
    moves = {name for name in methods if name in _KNOWN and any(AUGMENTATION in turn for turn in _KNOWN[name].passes)}
    takers: dict[str, bool] = {name: policy in policies for name, policy in _OF_POLICY.items()}
    for name, method in _KNOWN.items():
        for field in (field for group in method.configs for field in fields(group)):
            takers[field.name] = takers.get(field.name, False) or name in methods
    if FixedAug.name in policies:
        takers |= {field.name: True for field in fields(PrimitiveConfig)}
    takers |= {"augment_learning_rate": bool(moves), "augment_weight_decay": bool(moves)}
    takers |= {"selection_learning_rate": "transinv" in methods, "ema_decay": _has_average(config, methods)}
    return {
        name: value
        for name, value in config.items()
        if name not in _PRIVATE
        and takers.get(name, True)
        and (name not in _NEEDS or _NEEDS[name](config))
        and not _is_off(name, value)
    }


def _has_average(config: Values, methods: set[str]) -> bool:
    """Whether an average of the student was kept."""
    of_method = "teachaugment" in methods or ("consistency" in methods and config.get("consistency_target") == "ema")
    return of_method or "ema" in (config.get("teachers") or ()) or config.get("ema", "none") != "none"


def _is_off(name: str, value: Any) -> bool:
    """Whether a value is None, or the default of its field and says that nothing is done."""
    if value is None:
        return True
    if name == "seed" or name not in _FIELDS or _FIELDS[name].default is MISSING:
        return False
    default = _FIELDS[name].default
    return (value in ([], 0, False, "none")) and (value == default or (value == [] and default == ()))
