"""The report as one self-contained HTML page.

Names of models and of data come from users: Jinja2's autoescape escapes them, and the images contain none. The page
loads nothing from elsewhere, and its content security policy forbids it.
"""

from typing import Any

from jinja2 import Environment, PackageLoader

from hf_transinv.figures import LARGEST_MAGNIFIED_IMAGE
from hf_transinv.invariance.plots import image_strip, plot_curves, plot_ranges, style_of
from hf_transinv.invariance.report import Measured, Report, headline, number, short_names, tolerated_text
from hf_transinv.invariance.sweeps import LEVEL, Curve, Sweep, ranking


def _example(report: Report, sweep: Sweep, curve: Curve) -> dict[str, str]:
    """The images at the strength where the model's agreement falls below 95 %, or at the end of the range."""
    strength = sweep.strengths[-1] if curve.tolerated_up_to is None else curve.tolerated_up_to
    if sweep.is_corruption:
        below = (s for s, value in zip(sweep.strengths, curve.agreement, strict=True) if value < LEVEL)
        strength = next(below, strength)
    shown = f"severity {strength:.0f}" if sweep.is_corruption else number(strength, sweep.unit)
    caption = f"{shown}, still above {LEVEL:.0%}" if curve.tolerated_up_to is None else shown
    return {"caption": caption, "picture": image_strip(sweep.apply(report.examples, strength, report.seed, 0))}


def _ranked(report: Report, model: Measured, corruptions: bool, largest: float) -> list[dict[str, Any]]:
    """The rows of a ranking, with the start and length of a bar in percent of the width.

    The bar is the mean agreement; for a model that is compared with a reference, its score beyond the reference, to
    the left or right of the middle.

    Args:
        report: everything on the page.
        model: the model that is ranked by.
        corruptions: whether to rank the corruptions; else the primitives.
        largest: largest absolute score beyond the reference, of all models.
    """
    scores, relative = report.scores(model), report.is_relative(model)
    rows = []
    for name in ranking(scores, report.sweeps, corruptions):
        sweep, curve = next(s for s in report.sweeps if s.name == name), model.curves[name]
        value = scores[name] / largest / 2 if relative else curve.mean_agreement
        points = report.points(model, name)
        rows.append(
            {
                "title": sweep.title,
                "start": 100 * (min(0.5, 0.5 + value) if relative else 0),
                "length": 100 * abs(value),
                "is_less": relative and value < 0,
                "score": f"{scores[name]:+.2f}".replace("-", "−"),
                "points": f"{points:+.1f}".replace("-", "−") if relative else f"{points:.1f} %",
                "tolerated": tolerated_text(sweep, curve.tolerated_up_to),
            }
        )
    return rows


def page(report: Report) -> str:
    """The report as an HTML page."""
    names = short_names([model.name for model in report.models])
    relative = [abs(v) for m in report.models if report.is_relative(m) for v in report.scores(m).values()]
    largest = max(relative, default=1.0) or 1.0
    models = [
        {
            "measured": model,
            "short": name,
            "style": style_of(index),
            "is_reference": model.name == report.reference,
            "is_relative": report.is_relative(model),
            "headline": headline(report, model),
            "rankings": [
                (kind, _ranked(report, model, corruptions, largest))
                for kind, corruptions in (("corruptions", True), ("primitives", False))
            ],
        }
        for index, (model, name) in enumerate(zip(report.models, names, strict=True))
    ]
    originals = image_strip(report.examples)
    panels = [
        {
            "sweep": sweep,
            "curves": plot_curves(sweep, [model.curves[sweep.name] for model in report.models], report.tolerance),
            "tolerated": [tolerated_text(sweep, model.curves[sweep.name].tolerated_up_to) for model in report.models],
            "examples": [_example(report, sweep, model.curves[sweep.name]) for model in report.models],
        }
        for sweep in report.sweeps
    ]
    ranges = [
        {"title": found[0].primitive.replace("_", " "), "found": found, "picture": plot_ranges(found)}
        for found in zip(*(model.widest.ranges for model in report.models), strict=True)
    ]
    environment = Environment(loader=PackageLoader("hf_transinv"), autoescape=True, trim_blocks=True)
    template = environment.get_template("invariance.html")
    reference = next((m["short"] for m in models if m["is_reference"]), None)
    magnified = report.examples.shape[-1] <= LARGEST_MAGNIFIED_IMAGE
    return template.render(
        report=report,
        models=models,
        panels=panels,
        ranges=ranges,
        originals=originals,
        magnified=magnified,
        reference=reference,
        level=LEVEL,
        side=report.examples.shape[-1],
    )
