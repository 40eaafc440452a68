"""The end of a run: complete run.json, export the student with its card, push it if asked.

run.json then holds everything that the card says (see `run.Run`): what the student and its teachers are, how strong
the learned deformations became, and which data, figures and citations belong to the run.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.config import TrainConfig
from hf_transinv.data.embedded import EMBEDDED_NAMES
from hf_transinv.data.folders import local_path
from hf_transinv.data.run_data import Data
from hf_transinv.data.transforms import to_float
from hf_transinv.errors import InputError
from hf_transinv.evaluation.class_figures import draw_classes
from hf_transinv.evaluation.result import ClassScores, Result
from hf_transinv.experiment.closing import closing_text
from hf_transinv.experiment.launch import doing
from hf_transinv.experiment.session import Session
from hf_transinv.figures import plot_corruption_heatmap, plot_curves
from hf_transinv.formats.terminal import say
from hf_transinv.formats.typed_json import as_json, read_as
from hf_transinv.hub.card import render_card
from hf_transinv.hub.card_figures import shown_figures
from hf_transinv.hub.export import export_classifier
from hf_transinv.hub.push import push_run
from hf_transinv.hub.recorded_run import Dataset, Student, baselines_of, is_own_architecture, read_run
from hf_transinv.hub.recorded_run import Teacher as RecordedTeacher
from hf_transinv.hub.short_names import last_part, short_name
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.multiply_adds import giga_multiply_adds
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.sample import ByCondition, Sample
from hf_transinv.record import RunRecord, read_metrics
from hf_transinv.resolve.shipped import model_folder
from hf_transinv.training.averaging import AVERAGE, exported
from hf_transinv.training.freezing import LP_FT
from hf_transinv.training.interpolation import CITATION as WISE_FT

_MOST_LABELS = 20
_SHOWN = 4
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def publish(session: Session, objective: Objective) -> str:
    """Export the student with its card, complete run.json, push if asked; all processes leave together.

    run.json says "finished" only when everything is written: a run that ends in here, on a full disk say, can be
    resumed.

    Args:
        session: its first row is published.
        objective: of that row.

    Returns:
        A summary for the terminal; empty on all processes but the main one.
    """
    text = ""
    doing("publishing the student")
    if session.record:
        say("writing", f"student, figures and card to {session.folder}")
        config, ema, main = session.record.content["config"], session.train.ema, str(session.main_row)
        student, average = exported(objective, ema), objective.average
        evaluation = session.data.evaluation
        sample = Sample(
            session.folder,
            to_float(evaluation.images[:_SHOWN]),
            evaluation.labels[:_SHOWN],
            session.train.seed,
            [short_name(teacher.name) for teacher in objective.teachers],
            _gain(session),
        )
        learned = {"magnitudes": [], **objective.export_learned(sample)}
        _draw_figures(session)
        session.record.add(
            status="finished",
            name=session.folder.name,
            **describe_method(objective),
            student=as_json(describe_student(student, base_model(config))),
            dataset=as_json(describe_data(session.data)),
            image_size=session.data.image_size,
            teachers=[as_json(describe_teacher(teacher)) for teacher in objective.teachers],
            **learned,
            figures=_figures(session.folder),
            citations=[*objective.citations, *_of_the_loop(session.train)],
        )
        shown = [session.folder / path for path in shown_figures(read_run(session.record.content))]
        how: dict[str, Any] = {"tag": main.lower(), "figures": shown, "extra": {"kin": sorted(objective.kin)}}
        how |= session.data.evaluated_as
        if average is not None:
            told = {**session.record.content["student"], "ema_decay": average.decay}
            of_average = {"main_row": f"{main}, {AVERAGE}", "student": told}
            if ema == "instead":
                session.record.add(**of_average)
            else:
                card = render_card({**session.record.content, **of_average}, folder="ema")
                place = session.folder / "ema"
                export_classifier(average.classifier, place, card=card, **how)
        card = render_card(session.record.content)
        export_classifier(student, session.folder / "student", card=card, **how)
        session.record.update()
        session.tracking.overrides = {}
        is_new = session.tracking.open(main, session.folder, objective, config)
        figures = [session.folder / path for path in _figures(session.folder)]
        session.tracking.draw(figures, session.rows[main]["steps"])
        if is_new:  # it was trained before this start of the run
            session.tracking.score(session.rows[main])
        text = closing_text(read_run(session.record.content), session.data, session.output, session.folder)
        if session.output.push_to_hub:
            try:
                text += f"\nPublished: {push_run(session.folder, session.output.push_to_hub)}"
            except InputError as error:
                text += f"\nNot published: {error}"
    session.leave()
    return text


def _of_the_loop(train: TrainConfig) -> list[str]:
    """BibTeX of what the training loop did beside the method."""
    return [*([LP_FT] if train.linear_probe_share else []), *([WISE_FT] if train.interpolate is not None else [])]


def describe_method(objective: Objective) -> dict[str, Any]:
    """What the student minimised, under which augmentations, by their names."""
    policies = [policy.name for policy in objective.policies]
    return {"objective": objective.name, "task": objective.task_name, "policies": policies}


def describe_student(student: Classifier, base: str | None = None) -> Student:
    """What the exported network is and how images have to be prepared for it.

    Args:
        student: as it is exported.
        base: Hub id of the repository whose weights it started from.
    """
    names = tuple(student.label_names or ())
    library, architecture = _network(student)
    return Student(
        library=library,
        architecture=architecture,
        is_own_architecture=library == "timm" and is_own_architecture(architecture),
        num_parameters=sum(parameter.numel() for parameter in student.network.parameters()),
        gmacs=round(giga_multiply_adds(student), 5),
        num_classes=student.num_classes,
        label_names=names if len(names) <= _MOST_LABELS else names[: _MOST_LABELS // 2],
        input_size=tuple(student.input_size),
        mean=_decimals(student.get_buffer("mean")),
        std=_decimals(student.get_buffer("std")),
        base_model=base,
    )


def describe_teacher(teacher: Teacher) -> RecordedTeacher:
    """What a teacher is; where it is a run of ours in a local folder, also what it was trained on."""
    library, architecture = _network(teacher.classifier)
    described = RecordedTeacher(teacher.name, hub_id(teacher.name), teacher.num_classes, library, architecture)
    if isinstance(teacher, EMATeacher):
        return replace(described, ema_decay=teacher.decay)
    if described.hub_id:
        return described
    folder = local_path(teacher.name)
    corruption = _corruption_of(folder if folder.exists() else model_folder(teacher.name) or folder)
    return replace(described, name=last_part(teacher.name), trained_on=corruption or None)


def _corruption_of(folder: Path) -> tuple[str, ...]:
    """The corruptions that the run in a folder, or in its parent, trained on; empty where there is no run."""
    for place in (folder, folder.parent):
        if (place / "run.json").is_file():
            try:
                found = RunRecord.read(place)["config"].get("corruption", [])
            except InputError:
                return ()
            return tuple(name for name in found if name in CORRUPTIONS) if isinstance(found, list) else ()
    return ()


def describe_data(data: Data) -> Dataset:
    """Which data set, where it comes from and how many images it has."""
    name = str(data.config.dataset)
    is_local = name.startswith(".") or not _HUB_ID.fullmatch(name) or local_path(name).exists()
    kind = "embedded" if name in EMBEDDED_NAMES else "local" if is_local else "hub"
    shown = last_part(str(local_path(name).absolute())) if kind == "local" else name
    return Dataset(shown, kind, data.num_rows, len(data.evaluation), data.eval_split)


def hub_id(name: str) -> str | None:
    """The Hub repository that a model's name refers to, without revision; None for a folder or "ema"."""
    prefix, _, rest = name.partition(":")
    if prefix.lower() in ("hf-hub", "hf_hub"):
        return rest.partition("@")[0]
    registered = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) and not rest else None
    if registered is not None:
        return registered.hf_hub_id or None
    if rest and timm.is_model(prefix):
        name = rest
    is_folder = os.path.isdir(name) or model_folder(name) is not None
    is_id = _HUB_ID.fullmatch(name.partition("@")[0]) and not name.startswith(".") and not is_folder
    return name.partition("@")[0] if is_id else None


def base_model(config: Mapping[str, Any]) -> str | None:
    """The Hub id of the repository whose weights the student started from; None where it started from none."""
    start, _, index = config["student_init"].partition(":")
    if start == "scratch":
        return None
    return hub_id(config["teachers"][int(index) - 1] if start == "teacher" else config["student"])


def _network(classifier: Classifier) -> tuple[str, str]:
    """Library and architecture."""
    return "timm" if classifier.image_processor is None else "transformers", classifier.architecture


def _decimals(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.flatten().tolist())


def _gain(session: Session) -> tuple[ByCondition, ByCondition] | None:
    """The first baseline and the published row, by condition; None: no baseline, or no corruption to compare under."""
    main = str(session.main_row)
    baselines = baselines_of(session.rows, main)
    if not baselines:
        return None
    before, after = (_by_condition(session, name) for name in (baselines[0], main))
    return (before, after) if len(after[1]) > 1 else None


def _by_condition(session: Session, row: str) -> ByCondition:
    result = read_as(Result, session.rows[row]["results"], "results")
    means = {name: result.mean_over([name]) for name in result.corruptions}
    return row, {"clean": result.clean.top1, **{name: mean for name, mean in means.items() if mean is not None}}


def _classes(session: Session) -> ClassScores | None:
    """Scores of each class of the row that is published; None where an earlier version evaluated it."""
    return read_as(Result, session.rows[str(session.main_row)]["results"], "results").classes


def _draw_figures(session: Session) -> None:
    """The figures of the training and of the evaluation."""
    folder, images = session.folder / "figures", session.data.evaluation.images
    plot_curves(read_metrics(session.folder / "metrics.jsonl"), folder / "curves.png")
    classes = _classes(session)
    rows = [error[0] for error in classes.errors] if classes else []
    draw_classes(session.rows[str(session.main_row)]["results"], images[rows] if rows else None, folder)
    results = {name: row["results"] for name, row in session.rows.items()}
    if any(result["corruptions"] for result in results.values()):
        plot_corruption_heatmap(results, folder / "corruption_heatmap.png")


def _figures(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "figures").glob("*.png"))
