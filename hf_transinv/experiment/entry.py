"""A recipe from its command line to its published student."""

from pathlib import Path
from typing import Any

from hf_transinv.augment.policies import CorruptionConfig
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import given_fields, told_configs
from hf_transinv.experiment.methods import GROUPS, MethodBuilder, MethodConfig, checked_mixing, new_student
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.publish import publish
from hf_transinv.experiment.recommended import RECOMMENDED, in_words
from hf_transinv.experiment.session import Session
from hf_transinv.experiment.student_checks import check_student
from hf_transinv.formats.terminal import say
from hf_transinv.objectives.supervised import Supervised


def baseline_row(baseline: str, crop: str) -> tuple[str, str, bool]:
    """The title, crop and flip of a fair row: crop_flip crops as the run does, and a run without crops shifts there.

    Args:
        baseline: as `OutputConfig.baselines`.
        crop: of the run.
    """
    if baseline == "plain":
        return "fine-tuning", "none", False
    own = "resized" if crop == "resized" else "pad"
    return _crop_flip(own), own, True


def _crop_flip(crop: str) -> str:
    return "resized crop + flip" if crop == "resized" else "crop + flip"


def train(recipe: str, description: str, default_config: Path | None = None, **defaults: Any) -> None:
    """A recipe from its command line to its published student.

    Args:
        recipe: its name, for folders and records.
        description: for --help.
        default_config: YAML that is read when neither --config nor --dataset is given.
        defaults: of this recipe, instead of the dataclasses' own.
    """
    groups, preset = parse_run(
        [DataConfig, StudentConfig, TrainConfig, *GROUPS, OutputConfig],
        default_config=default_config,
        description=description,
        defaults=defaults,
    )
    data, names, loop, *options, output = groups
    method = next(one for one in options if isinstance(one, MethodConfig))
    corruption = next(one for one in options if isinstance(one, CorruptionConfig))
    if corruption.corruption and "corruption" not in (*method.augment, *method.second_augment):
        raise InputError("corruption names what the policy corruption does: add corruption to augment")
    mixing, unit = checked_mixing(data, options)
    check_student(names, loop)
    session = Session(recipe, data, loop, output, as_dict(*groups), unit)
    session.mixing = mixing
    session.told += [*told_configs(default_config=default_config), preset]
    if RECOMMENDED.keys() <= defaults.keys() and "transinv" in method.augment:
        session.told.append(in_words(as_dict(*groups), given_fields(default_config=default_config)))
    builder = MethodBuilder(session, names, loop, options)
    if session.record:
        say("opening", f"student and teachers ({', '.join(names.teachers)})" if names.teachers else "student")
    objective = builder.build(loop.seed)
    session.tracking.kin = objective.kin
    plain = _crop_flip(data.crop) if data.flip and data.crop != "none" else "supervised"
    title = " + ".join((method.title or plain, *mixing.titles))
    session.fit(title, objective, data.crop, data.flip)
    session.mixing = mixing.of_classes
    session.tracking.overrides = {"method": "supervised", "augment": [], "second_augment": [], "corruption": []}
    for baseline in output.baselines:
        name, crop, flip = baseline_row(baseline, data.crop)
        if name != title:
            rival = new_student(names, session.label_names, loop.seed)
            session.fit(name, Supervised(rival, loop.label_smoothing), crop, flip)
    print(publish(session, objective))
