"""The end of a run: run.json made complete, the student exported with its card, pushed when asked.

run.json then holds everything that the card says (see `card.render_card`): what the student and its teachers are, how
strong the learned deformations became, which data, figures and citations belong to the run.
"""

import os
import re
from pathlib import Path
from typing import Any

import timm
import torch

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.data.embedded import EMBEDDED_NAMES
from hf_transinv.data.folders import local_path
from hf_transinv.data.run_data import Data
from hf_transinv.data.transforms import to_float
from hf_transinv.errors import InputError
from hf_transinv.evaluation import corruption_markdown
from hf_transinv.experiment.launch import doing
from hf_transinv.experiment.session import Session
from hf_transinv.hub.card import is_own_architecture, render_card
from hf_transinv.hub.card_sections import last_part, short_name, trained_on
from hf_transinv.hub.export import export_classifier
from hf_transinv.hub.push import push_run
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.base import Objective, Sample
from hf_transinv.record import RunRecord
from hf_transinv.resolve.shipped import model_folder

_MOST_LABELS = 20
_SHOWN = 4
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def publish(session: Session, objective: Objective) -> str:
    """Export the student with its card, close run.json, push when asked; all processes leave together.

    A run is "finished" when all of it is there: a run that ends in here, on a full disk say, is resumed.

    Args:
        session: its first row is what is published, the others stand beside it.
        objective: what that row was trained with.

    Returns:
        What a person at the terminal wants to know at the end; empty on other processes.
    """
    text = ""
    doing("publishing the student")
    if session.record:
        config, student = session.record.content["config"], next(iter(objective.students.values()))
        evaluation = session.data.evaluation
        sample = Sample(
            session.folder,
            to_float(evaluation.images[:_SHOWN]),
            evaluation.labels[:_SHOWN],
            session.train.seed,
            [short_name(teacher.name) for teacher in objective.teachers],
        )
        learned = {"magnitudes": [], **objective.export_learned(sample)}
        session.record.add(
            status="finished",
            name=session.folder.name,
            **describe_method(objective),
            student=describe_student(student) | _origin(config),
            dataset=describe_data(session.data),
            image_size=session.data.image_size,
            teachers=[describe_teacher(teacher) for teacher in objective.teachers],
            **learned,
            figures=_figures(session.folder),
            citations=objective.citations,
        )
        card = render_card(session.record.content, to_run="..")
        tag, side = session.main_row.lower(), session.data.image_size
        export_classifier(student, session.folder / "student", card=card, tag=tag, image_size=side)
        session.record.update()
        text = _closing_text(session.record.content, session.folder)
        if session.output.push_to_hub:
            try:
                text += f"\nPublished: {push_run(session.folder, session.output.push_to_hub)}"
            except InputError as error:
                text += f"\nNot published: {error}"
    session.leave()
    return text


def describe_method(objective: Objective) -> dict[str, Any]:
    """What the student minimised, under which augmentations, by their names."""
    policies = [policy.name for policy in objective.policies]
    return {"objective": objective.name, "task": objective.task_name, "policies": policies}


def describe_student(student: Classifier) -> dict[str, Any]:
    """What the exported network is and how images have to be prepared for it."""
    names = student.label_names or []
    return _network(student) | {
        "num_parameters": sum(parameter.numel() for parameter in student.network.parameters()),
        "num_classes": student.num_classes,
        "label_names": names if len(names) <= _MOST_LABELS else names[: _MOST_LABELS // 2],
        "input_size": list(student.input_size),
        "mean": _decimals(student.mean),
        "std": _decimals(student.std),
    }


def describe_teacher(teacher: Teacher) -> dict[str, Any]:
    """What a teacher is; where it is a run of ours in a local folder, also what it was trained on."""
    network = _network(teacher.classifier)
    described = {"name": teacher.name, "hub_id": hub_id(teacher.name), "num_classes": teacher.num_classes}
    described |= {"library": network["library"], "architecture": network["architecture"]}
    if isinstance(teacher, EMATeacher):
        return described | {"ema_decay": teacher.decay}
    if described["hub_id"]:
        return described
    folder = local_path(teacher.name)
    corruption = _corruption_of(folder if folder.exists() else model_folder(teacher.name) or folder)
    return described | {"name": last_part(teacher.name)} | ({"trained_on": corruption} if corruption else {})


def _corruption_of(folder: Path) -> list[str]:
    """The corruptions that the run in a folder, or in the one above its student, trained on."""
    for place in (folder, folder.parent):
        if (place / "run.json").is_file():
            try:
                found = RunRecord.read(place)["config"].get("corruption", [])
            except InputError:
                return []
            return [name for name in found if name in CORRUPTIONS] if isinstance(found, list) else []
    return []


def describe_data(data: Data) -> dict[str, Any]:
    """Which data set, where it comes from and how many images it has; a local one by its last part."""
    name = data.config.dataset
    is_local = name.startswith(".") or not _HUB_ID.fullmatch(name) or local_path(name).exists()
    kind = "embedded" if name in EMBEDDED_NAMES else "local" if is_local else "hub"
    return {
        "name": last_part(str(local_path(name).absolute())) if kind == "local" else name,
        "kind": kind,
        "train_rows": data.num_rows,
        "eval_rows": len(data.evaluation),
        "eval_split": data.eval_split,
    }


def hub_id(name: str) -> str | None:
    """The Hub repository that a model's name means, without its revision; None for a folder or the average."""
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


def _network(classifier: Classifier) -> dict[str, Any]:
    if classifier.image_processor is not None:
        architecture = type(classifier.network).__name__
        return {"library": "transformers", "architecture": architecture, "is_own_architecture": False}
    architecture = classifier.network.pretrained_cfg["architecture"]
    return {
        "library": "timm",
        "architecture": architecture,
        "is_own_architecture": is_own_architecture(architecture),
    }


def _origin(config: dict[str, Any]) -> dict[str, str]:
    """The repository whose weights the student started from, if it did; its teachers else only judged."""
    start, _, index = config["student_init"].partition(":")
    if start == "scratch":
        return {}
    base = hub_id(config["teachers"][int(index) - 1] if start == "teacher" else config["student"])
    return {"base_model": base} if base else {}


def _decimals(values: torch.Tensor) -> list[float]:
    return [round(value, 6) for value in values.flatten().tolist()]


def _figures(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "figures").glob("*.png"))


def _closing_text(run: dict[str, Any], folder: Path) -> str:
    """The table of all rows, what was learned, and where everything lies."""
    results = {name: row["results"] for name, row in run["rows"].items()}
    shown = corruption_markdown(results, {run["main_row"]: trained_on(run)})
    learned, config = run["rows"][run["main_row"]]["learned"], run["config"]
    lines = []
    for index, teacher in enumerate(config.get("teachers", []) if "p" in learned else []):
        r = f"{learned['r'][index]:.2f}" if "r" in learned else "-"
        p = "  ".join(f"{name} {p:.2f}" for name, p in zip(config["primitives"], learned["p"][index], strict=True))
        lines.append(f"{teacher}\n    r {r}  q {learned['q'][index]:.2f}  p: {p}\n")
    return f"\n{shown}\n{''.join(lines)}\nStudent, figures, metrics and run.json are in {folder}"
