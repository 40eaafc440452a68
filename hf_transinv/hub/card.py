"""run.json -> README.md of a student: metadata for the Hub, and what a person wants to know before using it.

Everything that the card says stands in run.json; what was not recorded is absent, never guessed. The page is the
template `templates/student_card.md`, its sentences and tables are made in `card_sections`.

`base_model` names what the student's weights started from, as a finetune, and nothing else. The relations that the
Hub knows (finetune, adapter, merge, quantized) all say that weights were passed on; teachers pass on none, they judge
images. They stand in the text, with links.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import timm
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import TemplateError

from hf_transinv import markdown
from hf_transinv.config import OutputConfig
from hf_transinv.errors import InputError
from hf_transinv.hub import card_sections as sections
from hf_transinv.record import published

# Where a run wrote to, and how it was spoken to: of no use to a reader of its card.
_PRIVATE_FIELDS = (
    "output_dir",
    "resume_from",
    "report_to",
    "push_to_hub",
    "private",
    "hub_revision",
    "push_every",
    "license",
)


def render_card(
    run: dict[str, Any],
    *,
    repo_id: str | None = None,
    revision: str | None = None,
    folder: str = "student",
    to_run: str = "",
) -> str:
    """Render the card of a finished run.

    Args:
        run: the content of run.json, of this version or an earlier one.
        repo_id: USER/NAME, for a card that stands at the root of that repository.
        revision: the branch it stands on there; None for main.
        folder: without a repo_id: the student's folder as the code in the card names it.
        to_run: the way from the card's folder to the one with run.json and figures/: "" where they lie together, as
            in a repository; ".." from OUT/student.

    Returns:
        README.md: YAML metadata between two lines of three dashes, then Markdown.

    Raises:
        InputError: the run has no results yet, or its record has values of another kind than a run writes.
    """
    run = published(run)
    if not run.get("rows"):
        raise InputError(f"run.json of {run.get('recipe', 'this run')!r} has no results yet: finish the run first")
    try:
        return _render(run, repo_id, revision, folder, to_run)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, TemplateError) as error:
        raise InputError(
            f"run.json of {run.get('recipe', 'this run')!r} is not as a run writes it ({type(error).__name__}: "
            f"{error}); take it from the run's folder again"
        ) from error


def _render(run: Mapping[str, Any], repo_id: str | None, revision: str | None, folder: str, to_run: str) -> str:
    title = markdown.plain((repo_id or "").rpartition("/")[2] or run.get("name") or _folder_name(run, folder))
    template = (files("hf_transinv") / "templates" / "student_card.md").read_text(encoding="utf-8")
    facts = _facts(run) | _loading(run, repo_id, revision, folder)
    pictures = sections.pictures(run, to_run)
    data = _metadata(run, title)
    card = ModelCard.from_template(
        data, template_str=template, title=markdown.escape(title), pictures=pictures, **facts
    )
    return str(card).rstrip() + "\n"


def _folder_name(run: Mapping[str, Any], folder: str) -> str:
    return sections.last_part(run["config"].get("output_dir") or folder)


# Metadata


def _metadata(run: Mapping[str, Any], title: str) -> ModelCardData:
    student, dataset = _student(run), sections.dataset_of(run)
    library = markdown.plain(student.get("library", "timm"))
    results = eval_results(run)
    metrics = list(dict.fromkeys(result.metric_type for result in results))
    base, names = student.get("base_model"), sections.method_names(run)
    return ModelCardData(
        library_name=library,
        pipeline_tag="image-classification",
        license=markdown.plain(run["config"].get("license", OutputConfig.license)),
        tags=[*dict.fromkeys(("image-classification", library, "transformers", "hf_transinv", *names))],
        datasets=[markdown.plain(dataset["name"])] if dataset["kind"] == "hub" else None,
        metrics=metrics,
        model_name=title,
        eval_results=results,
        base_model=[markdown.plain(base)] if base else None,
        base_model_relation="finetune" if base else None,
    )


def eval_results(run: Mapping[str, Any]) -> list[EvalResult]:
    """The model-index: top-1, top-5 and ECE on clean images, then under corruption; accuracies as fractions."""
    found = run["rows"][sections.main_row(run)]["results"]
    dataset, config = sections.dataset_of(run), run["config"]
    common = {
        "task_type": "image-classification",
        "dataset_type": markdown.plain(dataset["name"]) if dataset["kind"] == "hub" else dataset["kind"] or "unknown",
        "dataset_name": markdown.plain(dataset["name"]),
        "dataset_config": _plain_or_none(config.get("dataset_config")),
        "dataset_split": _plain_or_none(dataset.get("eval_split")),
        "dataset_revision": _plain_or_none(config.get("dataset_revision")),
    }
    severities = {"severities": ", ".join(map(str, found["severities"]))} if found.get("severities") else None
    measured = [
        ("accuracy", "Top-1", _fraction(found["clean"].get("top1")), None),
        ("accuracy", "Top-5", _fraction(found["clean"].get("top5")), {"top_k": 5}),
        ("ece", "Expected calibration error", found["clean"].get("ece"), None),
        ("accuracy", "Top-1 under corruption, mean", _fraction(found.get("corruption_mean")), severities),
        ("ece", "Expected calibration error under corruption, mean", found.get("corruption_ece"), severities),
    ]
    for name, measure in found.get("corruption_errors", {}).items():
        if name.startswith("mCE"):
            convention = {"definition": markdown.plain(measure["definition"])}
            measured.append(("mce", "Mean corruption error, percent", measure["percent"], convention))
    for name, row in found.get("corruptions", {}).items():
        title = markdown.plain(f"Top-1 under {name.replace('_', ' ')}")
        measured.append(("accuracy", title, _fraction(row["mean"]), {"corruption": markdown.plain(name)}))
    return [
        EvalResult(metric_type=kind, metric_name=name, metric_value=float(value), metric_args=given, **common)
        for kind, name, value, given in measured
        if value is not None
    ]


def _plain_or_none(text: str | None) -> str | None:
    return None if text is None else markdown.plain(text)


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


# Text


def _student(run: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the student; of an earlier record only what its configuration says: an architecture of timm's
    registry, by name.
    """
    if "student" in run:
        return run["student"]
    name = (run["config"].get("student") or "").partition(".")[0]
    if run["config"].get("student_init") != "scratch" or not timm.is_model(name):
        return {}
    return {"library": "timm", "architecture": name, "is_own_architecture": is_own_architecture(name)}


def is_own_architecture(name: str) -> bool:
    """Whether importing this package registers the timm architecture."""
    return timm.model_entrypoint(name).__module__.partition(".")[0] == "hf_transinv"


def _facts(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the template fills in."""
    name, config = sections.main_row(run), run["config"]
    row, student, hardware = run["rows"][name], _student(run), _hardware(run.get("hardware", {}))
    config_shown = {key: value for key, value in config.items() if value is not None and key not in _PRIVATE_FIELDS}
    return {
        "run": run,
        "row": row,
        "results": row["results"],
        "student": student,
        "s": sections,
        "md": markdown,
        "dataset": sections.dataset_of(run),
        "teachers": sections.teachers_of(run),
        "trained_on": [corruption.replace("_", " ") for corruption in sections.trained_on(run)],
        "start": _start(run),
        "learned": row.get("learned", {}),
        "same_images": len({other.get("images_seen") for other in run["rows"].values()} | {None}) == 2,
        "training": sections.training(run, hardware),
        "versions": ", ".join(f"{package} {version}" for package, version in run.get("versions", {}).items()),
        "config_yaml": markdown.fenced(
            yaml.safe_dump(config_shown, sort_keys=False, default_flow_style=None, width=110), "yaml"
        ),
        "command": markdown.fenced(_command(run), "bash") if run.get("command") else "",
        "citations": markdown.fenced("\n\n".join(run.get("citations", [])), "bibtex") if run.get("citations") else "",
    }


def _command(run: Mapping[str, Any]) -> str:
    """The command line with what its launcher was given: the precision, and for `transinv` the processes."""
    command, found = markdown.plain(run["command"]), run.get("hardware", {})
    precision = found.get("mixed_precision", "no")
    flag = f" --mixed_precision {precision}" if precision != "no" else ""
    if command.startswith("transinv "):
        program, name, *flags = command.split(" ", 2)
        several = f" --num_processes {found['processes']}" if found.get("processes", 1) > 1 else ""
        return " ".join([program, name + several + flag, *flags])
    if found.get("processes") != 1 or not command.startswith("recipes/"):
        return command
    return f"accelerate launch{flag} {command}"


def _start(run: Mapping[str, Any]) -> str:
    """What the student's weights started from, where that was a teacher or a repository; else empty."""
    base = _student(run).get("base_model")
    if base:
        return markdown.hub_link(base)
    _, _, index = (run["config"].get("student_init") or "").partition(":")
    return "the teacher " + sections.teacher_link(sections.teachers_of(run)[int(index) - 1]) if index else ""


def _hardware(found: Mapping[str, Any]) -> str:
    """The machine in words; empty when nothing is recorded."""
    if found.get("accelerator") and found.get("device") != "cpu":
        parts = [f"{found.get('processes', found.get('accelerators', 1))} × {found['accelerator']}"]
    else:
        cores = [f"{found['cpu_cores']} CPU cores"] if "cpu_cores" in found else []
        parts = [*cores, *([found["machine"]] if "machine" in found else [])]
        if found.get("processes", 1) > 1:
            parts.append(f"{found['processes']} processes")
    if found.get("mixed_precision", "no") != "no":
        parts.append(found["mixed_precision"])
    return markdown.escape(", ".join(parts))


def _loading(run: Mapping[str, Any], repo_id: str | None, revision: str | None, folder: str) -> dict[str, Any]:
    """How the code in the card names the student; the strings are Python literals."""
    student = _student(run)
    own = student.get("is_own_architecture", not student)
    registers = (
        f"  # registers {markdown.plain(student['architecture'])}" if student else "  # for architectures of its own"
    )
    return {
        "is_timm": student.get("library", "timm") == "timm",
        "import_own": f"import hf_transinv{registers}\n" if own else "",
        "is_own": own,
        "timm_name": json.dumps(
            f"hf-hub:{repo_id}{f'@{revision}' if revision else ''}" if repo_id else f"local-dir:{folder}"
        ),
        "transformers_name": json.dumps(repo_id or folder),
        "at_revision": f", revision={json.dumps(revision)}" if repo_id and revision else "",
        "has_labels": bool(student.get("label_names")),
        "is_local": repo_id is None,
        "folder": markdown.code(folder),
    }
