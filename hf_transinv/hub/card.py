"""run.json -> README.md of a student: metadata for the Hub, and what a person wants to know before using it.

The card says what run.json says, and nothing about what was not recorded. The template `templates/student_card.md`
has its structure; `card_about`, `card_details`, `card_results`, `card_invariances` and `card_figures` make its parts.

`base_model` names the repository whose weights the student started from, as a finetune. Teachers are not base models:
the relations that the Hub knows (finetune, adapter, merge, quantized) all mean that weights were taken over, and a
teacher's predictions are not weights. The text names them, with links.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from hf_transinv.config import MixingConfig
from hf_transinv.formats import markdown
from hf_transinv.formats.typed_json import read_as
from hf_transinv.hub import card_about as about
from hf_transinv.hub import card_details as details
from hf_transinv.hub import card_figures as figures
from hf_transinv.hub import card_invariances as invariances
from hf_transinv.hub import card_results as results
from hf_transinv.hub.recorded_run import Run, read_run
from hf_transinv.hub.short_names import last_part
from hf_transinv.hub.used_settings import used_settings
from hf_transinv.record import published


def render_card(
    content: Mapping[str, Any],
    *,
    repo_id: str | None = None,
    revision: str | None = None,
    folder: str = "student",
) -> str:
    """Render the card of a finished run.

    Args:
        content: of run.json, of this version or an earlier one.
        repo_id: USER/NAME, for a card at the root of that repository.
        revision: the card's branch in the repository; None for main.
        folder: without a repo_id: the student's folder as the code in the card names it.

    Returns:
        README.md: YAML metadata between two lines of three dashes, then Markdown.

    Raises:
        InputError: the run has no results yet, or a field of its record is not as a run writes it.
    """
    content = published(content)
    run = read_run(content)
    title = markdown.plain(
        (repo_id or "").rpartition("/")[2] or run.name or last_part(run.config.output_dir or folder)
    )
    template = (files("hf_transinv") / "templates" / "student_card.md").read_text(encoding="utf-8")
    facts = _facts(run) | _listings(run, content["config"]) | _loading(run, repo_id, revision, folder)
    mixing = read_as(MixingConfig, content["config"], "run.json.config")
    facts["method"] = " ".join(filter(None, (facts["method"], about.regularisers(mixing))))
    card = ModelCard.from_template(
        _metadata(run, title), template_str=template, title=markdown.escape(title), md=markdown, **facts
    )
    return str(card).rstrip() + "\n"


def _metadata(run: Run, title: str) -> ModelCardData:
    library, base = markdown.plain(run.student.library), run.student.base_model
    model_index = results.eval_results(run)
    tags = ("image-classification", library, "transformers", "hf_transinv", *map(markdown.plain, run.methods))
    return ModelCardData(
        library_name=library,
        pipeline_tag="image-classification",
        license=markdown.plain(run.config.license),
        tags=list(dict.fromkeys(tags)),
        datasets=[markdown.plain(run.dataset.name)] if run.dataset.kind == "hub" else None,
        metrics=list(dict.fromkeys(result.metric_type for result in model_index)),
        model_name=title,
        eval_results=model_index,
        base_model=[markdown.plain(base)] if base else None,
        base_model_relation="finetune" if base else None,
    )


def _facts(run: Run) -> dict[str, Any]:
    """What the template puts in its places, but for code and listings."""
    return {
        "student": run.student,
        "results": run.main.results,
        "learned": run.main.learned,
        "eval_split": run.dataset.eval_split,
        "labels": about.label_list(run.student),
        "dataset_link": about.dataset_link(run),
        "start": about.start(run),
        "method": about.method(run),
        "training": about.training(run),
        "limits": about.limits(run),
        "scores_table": results.scores_table(run),
        "scores_note": results.scores_note(run),
        "classes": results.classes(run),
        "corruption_heading": results.corruption_heading(run),
        "corruption_table": results.corruption_table(run),
        "corruption_note": results.corruption_note(run),
        "teachers_table": invariances.teachers_table(run),
        "deformations": invariances.deformations(run),
        "magnitudes_table": invariances.magnitudes_table(run),
        "pictures": figures.of_training(run),
        "top": figures.at_the_top(run),
        "results_figures": figures.of_results(run),
        "details": details.listed(run),
        "install": details.install(run),
        "versions": ", ".join(f"{package} {version}" for package, version in run.versions.items()),
        "commit": run.commit,
    }


def _listings(run: Run, config: Mapping[str, Any]) -> dict[str, str]:
    """Blocks of code: the whole configuration, the command line, BibTeX."""
    policies = {*run.policies, *(config.get("augment") or ()), *(config.get("second_augment") or ())}
    shown = used_settings(config, {run.objective, run.task}, policies)
    return {
        "config_yaml": markdown.fenced(
            yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=110), "yaml"
        ),
        "command": markdown.fenced(about.command(run), "bash") if run.command else "",
        "citations": markdown.fenced("\n\n".join(run.citations), "bibtex") if run.citations else "",
    }


def _loading(run: Run, repo_id: str | None, revision: str | None, folder: str) -> dict[str, Any]:
    """How the code in the card names the student; the strings are Python literals."""
    student = run.student
    registered = "for architectures of its own"
    if student.architecture is not None:
        registered = f"registers {markdown.plain(student.architecture)}"
    at = f"@{revision}" if revision else ""
    return {
        "is_timm": student.library == "timm",
        "import_own": f"import hf_transinv  # {registered}\n" if student.is_own_architecture else "",
        "timm_name": json.dumps(f"hf-hub:{repo_id}{at}" if repo_id else f"local-dir:{folder}"),
        "transformers_name": json.dumps(repo_id or folder),
        "at_revision": f", revision={json.dumps(revision)}" if repo_id and revision else "",
        "is_local": repo_id is None,
        "download": markdown.code(f"hf download {repo_id}" + (f" --revision {revision}" if revision else "")),
        "folder": markdown.code(folder),
    }
