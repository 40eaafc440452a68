"""The report as one self-contained HTML page.

Names of models and of data come from users: Jinja2's autoescape escapes them, and the images contain none. The page
loads nothing from elsewhere, and its content security policy forbids it. In dark mode, pictures and bars stay on light
ground, so that the colour of a model is the same in both.
"""

import re
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from hf_transinv.figures import LARGEST_MAGNIFIED_IMAGE
from hf_transinv.invariance.plots import image_strip, plot_curves, plot_ranges, style_of
from hf_transinv.invariance.report import Measured, Report, headline, number, short_names, tolerated_text, verdict
from hf_transinv.invariance.sweeps import LEVEL, Curve, Sweep, ranking
from hf_transinv.invariance.verdict import agreement_of, difference

_KINDS = (("corruptions", True), ("primitives", False))
_BETWEEN_PARTS = re.compile(r"(?<=[/:@])(?=\w)")


def _breakable(text: str) -> Markup:
    """Escaped text that may be broken between the parts of a path or a Hub id, but in no name and before no margin."""
    return Markup("<wbr>").join(_BETWEEN_PARTS.split(text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")))


def _example(report: Report, sweep: Sweep, curve: Curve) -> dict[str, str]:
    """The images at the strength where the model's agreement falls below 95 %, or at the end of the range."""
    strength = sweep.strengths[-1] if curve.tolerated_up_to is None else curve.tolerated_up_to
    if sweep.is_corruption:
        below = (s for s, value in zip(sweep.strengths, curve.agreement, strict=True) if value < LEVEL)
        strength = next(below, strength)
    shown = f"severity {strength:.0f}" if sweep.is_corruption else number(strength, sweep.unit)
    caption = f"{shown}, still above {100 * LEVEL:.0f} %" if curve.tolerated_up_to is None else shown
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
        points = report.points(model, name).text("+" if relative else "")
        rows.append(
            {
                "title": sweep.title,
                "start": 100 * (min(0.5, 0.5 + value) if relative else 0),
                "length": 100 * abs(value),
                "is_less": relative and value < 0,
                "score": f"{scores[name]:+.2f}".replace("-", "−"),
                "points": points if relative else f"{points} %",
                "tolerated": tolerated_text(sweep, curve.tolerated_up_to),
            }
        )
    return rows


def _subtracted(report: Report, own: Measured, other: Measured) -> list[tuple[str, list[dict[str, Any]]]]:
    """Per kind of change, the rows of a table of differences, the largest first.

    Each has the place of its dot, and the start and length of the line through it, in percent of the width.
    """
    found = {sweep.name: difference(own.curves[sweep.name], other.curves[sweep.name]) for sweep in report.sweeps}
    reach = max(abs(one.value) + one.margin for one in found.values())
    kinds = []
    for kind, corruptions in _KINDS:
        of_kind = [sweep for sweep in report.sweeps if sweep.is_corruption == corruptions]
        rows = [
            {
                "title": sweep.title,
                "own": agreement_of(own.curves[sweep.name]).text(),
                "other": agreement_of(other.curves[sweep.name]).text(),
                "points": one.text("+"),
                "is_better": one.value > 0,
                "is_sure": abs(one.value) > one.margin,
                "place": 50 + 50 * one.value / reach,
                "start": 50 + 50 * (one.value - one.margin) / reach,
                "length": 100 * one.margin / reach,
            }
            for sweep in sorted(of_kind, key=lambda sweep: -found[sweep.name].value)
            for one in (found[sweep.name],)
        ]
        kinds += [(kind, rows)] if rows else []
    return kinds


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
            "rankings": [(kind, _ranked(report, model, corruptions, largest)) for kind, corruptions in _KINDS],
        }
        for index, (model, name) in enumerate(zip(report.models, names, strict=True))
    ]
    by_name = {measured.name: model for measured, model in zip(report.models, models, strict=True)}
    differences = [
        {"own": by_name[own.name], "other": by_name[other.name], "kinds": _subtracted(report, own, other)}
        for own, other in report.pairs
    ]
    ranked = [
        ranking(report.scores(model), report.sweeps, corruptions)
        for model in report.models
        for _, corruptions in _KINDS
    ]
    extremes = {name for names_of_kind in ranked if names_of_kind for name in (names_of_kind[0], names_of_kind[-1])}
    originals = image_strip(report.examples)
    panels = [
        {
            "sweep": sweep,
            "curves": plot_curves(sweep, [model.curves[sweep.name] for model in report.models], report.tolerance),
            "tolerated": [tolerated_text(sweep, model.curves[sweep.name].tolerated_up_to) for model in report.models],
            "examples": [_example(report, sweep, model.curves[sweep.name]) for model in report.models],
            "is_extreme": sweep.name in extremes,
        }
        for sweep in report.sweeps
    ]
    ranges = [
        {
            "name": found[0].primitive,
            "title": found[0].primitive.replace("_", " "),
            "found": found,
            "picture": plot_ranges(found),
        }
        for found in zip(*(model.widest.ranges for model in report.models), strict=True)
    ]
    environment = Environment(loader=PackageLoader("hf_transinv"), autoescape=True, trim_blocks=True)
    environment.filters["breakable"] = _breakable
    template = environment.get_template("invariance.html")
    reference = next((m["short"] for m in models if m["is_reference"]), None)
    magnified = report.examples.shape[-1] <= LARGEST_MAGNIFIED_IMAGE
    return template.render(
        report=report,
        verdict=verdict(report),
        models=models,
        differences=differences,
        panels=panels,
        ranges=ranges,
        originals=originals,
        magnified=magnified,
        reference=reference,
        level=LEVEL,
        side=report.examples.shape[-1],
    )
