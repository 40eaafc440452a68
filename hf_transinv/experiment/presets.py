"""Presets: defaults of the optimizer and its schedule by what the student is and what it starts from.

A preset is chosen and filled in here, once, between reading the command line and everything else. From then on a run
has plain values, which its record and its cards show and a resumed run is compared by.

    scratch               the defaults of `TrainConfig`
    finetune_cnn          SGD at a fifth of the rate from scratch, with less weight decay, as pretrained convolutional
                          networks are fine-tuned (Kornblith et al., CVPR 2019)
    finetune_transformer  AdamW with layer-wise decay of the rate, as vision transformers are fine-tuned (BEiT, Bao et
                          al., ICLR 2022; MAE, He et al., CVPR 2022)

Both rates of fine-tuning are proportional to the batch size (Goyal et al., 2017).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_transinv.config import StudentConfig, TrainConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import build, given_fields, read_fields
from hf_transinv.experiment.recommended import RECOMMENDED, fitted
from hf_transinv.models.layer_groups import is_transformer, knows_layers, outline
from hf_transinv.objectives.registry import METHODS

_FIELDS = ("optimizer", "learning_rate", "momentum", "weight_decay", "lr_scheduler", "warmup_ratio", "layer_decay")

PRESETS: dict[str, dict[str, Any]] = {
    "scratch": {name: getattr(TrainConfig, name) for name in _FIELDS[:-1]},
    "finetune_cnn": {
        "optimizer": "sgd",
        "learning_rate": 0.02 / 128,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.05,
    },
    "finetune_transformer": {
        "optimizer": "adamw",
        "learning_rate": 5e-4 / 256,
        "weight_decay": 0.05,
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.1,
        "layer_decay": 0.75,
    },
}
"""Fields of `TrainConfig` by preset; the learning rate of fine-tuning is for one image of the batch."""

_FOR_CLASSIFIERS = (
    "preset",
    "head_learning_rate",
    "layer_decay",
    "freeze",
    "linear_probe_share",
    "ema",
    "interpolate",
)


def parse_run(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    default_config: Path | None = None,
    description: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> tuple[list[Any], str]:
    """`arguments.parse` for a run that trains: with its preset filled in.

    Args:
        groups: dataclasses, `TrainConfig` among them.
        argv: see `arguments.parse`, as the others.
        default_config: the same.
        description: the same.
        defaults: the same.

    Returns:
        An instance of each group, whose `TrainConfig.preset` is no longer auto; and the preset in a line, as a run
        says it at its start.

    Raises:
        InputError: as `arguments.parse`; the student cannot be opened; or an option of fine-tuning does not fit.
    """
    values = read_fields(groups, argv, default_config, description, defaults)
    given = given_fields(argv, default_config)
    if RECOMMENDED.keys() <= (defaults or {}).keys():
        values = fitted(values, given, groups)
    parsed = build(groups, values)
    names = next((one for one in parsed if isinstance(one, StudentConfig)), None)
    if names is None:
        unfit = [name for name in _FOR_CLASSIFIERS if values[name] not in (getattr(TrainConfig, name), "scratch")]
        if unfit:
            raise InputError(f"{unfit[0]} is for classifiers, and this command trains none: leave it out")
        return build(groups, {**values, "preset": "scratch"}), ""
    check_start(names.student_init, values)
    _check_decay(values, given)
    preset, kept, said = values["preset"], given, ""
    if preset == "auto" and names.student_init == "scratch":
        preset = "scratch"
    if preset in ("auto", "finetune_transformer"):
        network = outline(names.network_name)
        preset = "finetune_transformer" if preset != "auto" or is_transformer(network) else "finetune_cnn"
        if preset == "finetune_transformer" and "layer_decay" not in given and not knows_layers(network):
            kept, said = given | {"layer_decay"}, "; without layer_decay, as its layers are not known"
    values = fill(values, kept, preset)
    if keeps_start(values):
        said += f"; weight_decay 0: {values['method']} has a penalty in its place"
    return build(groups, values), in_words(values, given) + said


def fill(values: Mapping[str, Any], given: Collection[str], preset: str) -> dict[str, Any]:
    """Fields of a run with those of a preset where they were not given.

    Args:
        values: by name; all of `TrainConfig`'s.
        given: names of those that a YAML or a flag gave.
        preset: a key of `PRESETS`.

    Raises:
        InputError: another optimizer was given than the preset's learning rate is for, and no learning rate.
    """
    if keeps_start(values):
        values, given = {**values, "weight_decay": 0.0}, {*given, "weight_decay"}
    if preset == "scratch":
        return {**values, "preset": preset}
    wanted = dict(PRESETS[preset])
    if "optimizer" in given and "learning_rate" not in given and values["optimizer"] != wanted["optimizer"]:
        raise InputError(
            f"preset {preset} has a learning rate for {wanted['optimizer']}, and optimizer {values['optimizer']} was "
            "given: give learning_rate as well, or preset scratch"
        )
    wanted["learning_rate"] = float(f"{wanted['learning_rate'] * values['batch_size']:.4g}")
    if values["freeze"] == "all":
        wanted.pop("layer_decay", None)  # the head alone trains
    return {**values, "preset": preset, **{name: wanted[name] for name in wanted if name not in given}}


def check_start(student_init: str, values: Mapping[str, Any]) -> None:
    """Raises InputError where the student would keep layers that have learned nothing, or be kept near nothing."""
    if values["freeze"] is not None and student_init == "scratch":
        raise InputError(
            f"freeze {values['freeze']} would keep random weights, since student_init is scratch: start from weights "
            "(student_init pretrained or teacher:K), or leave out freeze"
        )
    if values["linear_probe_share"] and student_init == "scratch":
        raise InputError(
            f"linear_probe_share {values['linear_probe_share']:g} would train a head on random weights, since "
            "student_init is scratch: start from weights (student_init pretrained or teacher:K), or leave it out"
        )
    if values["interpolate"] is not None and student_init == "scratch":
        raise InputError(
            f"interpolate {values['interpolate']:g} would go back to random weights, since student_init is scratch: "
            "start from weights (student_init pretrained or teacher:K), or leave it out"
        )
    if not keeps_start(values):
        return
    if student_init == "scratch":
        raise InputError(
            f"method {values['method']} would keep the student near random weights, since student_init is scratch: "
            "start from weights (student_init pretrained or teacher:K), or take another method"
        )
    if values["freeze"] == "all":
        raise InputError(
            f"method {values['method']} keeps the backbone near its start, where freeze all keeps it already: leave "
            "out one of the two"
        )


def keeps_start(values: Mapping[str, Any]) -> bool:
    """Whether the method among the fields of a run has a penalty of its own in place of weight decay."""
    method = METHODS.get(str(values.get("method")))
    return method is not None and method.keeps_start


def _check_decay(values: Mapping[str, Any], given: Collection[str]) -> None:
    if keeps_start(values) and "weight_decay" in given and values["weight_decay"]:
        raise InputError(
            f"weight_decay {values['weight_decay']}: method {values['method']} has a penalty in its place; leave out "
            "weight_decay"
        )


def in_words(values: Mapping[str, Any], given: Collection[str]) -> str:
    """The preset with its values, and which of them were given, on one line."""
    preset, own = values["preset"], [name for name in _FIELDS if name in given]
    shown = [name for name in _FIELDS if name in PRESETS[preset] or name in own]
    text = ", ".join(f"{name} {values[name]}" for name in shown if values[name] is not None or name in own)
    return f"preset      {preset}: {text}" + (f" (given: {', '.join(own)})" if own else "")
