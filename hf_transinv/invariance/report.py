"""What was measured of several models, verdict and rankings, and the short forms: Markdown, text, numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from hf_transinv.formats.markdown import escape, fenced, table
from hf_transinv.invariance.sweeps import LEVEL, Curve, Sweep, beyond, ranking
from hf_transinv.invariance.tolerated_range import ToleratedRange
from hf_transinv.invariance.verdict import Estimate, agreement_of, alone, compared, difference

_SHOWN_IN_HEADLINE = 2


@dataclass(frozen=True)
class Measured:
    """One model and what was measured of it.

    Attributes:
        name: as it was given.
        num_classes: of its answer.
        num_parameters: of its network.
        input_size: (h, w) that the network sees.
        curves: by the sweeps' names.
        widest: the widest range of the learned primitives.
    """

    name: str
    num_classes: int
    num_parameters: int
    input_size: tuple[int, int]
    curves: dict[str, Curve]
    widest: ToleratedRange


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        models: at least one.
        sweeps: in the order of the page.
        reference: name of the model that the others are compared with, or None.
        data: name and split of the images, in words.
        examples: a few of the images, float [n, 3, H, W] in [0, 1], on the CPU.
        num_images: how many were measured.
        tolerance: of the widest ranges, in nats.
        seed: of everything drawn.
        record: config, versions, seconds; as they go into the JSON.
    """

    models: Sequence[Measured]
    sweeps: Sequence[Sweep]
    reference: str | None
    data: str
    examples: Tensor
    num_images: int
    tolerance: float
    seed: int
    record: dict[str, Any]

    def scores(self, model: Measured) -> dict[str, float]:
        """What a model is ranked by: its scores, less the reference's unless it is the reference."""
        return beyond(model.curves, self._reference_of(model))

    def is_relative(self, model: Measured) -> bool:
        """Whether the model is ranked beyond a reference."""
        return self._reference_of(model) is not None

    def _reference_of(self, model: Measured) -> dict[str, Curve] | None:
        curves = {other.name: other.curves for other in self.models}
        return None if self.reference in (None, model.name) else curves[self.reference]

    def points(self, model: Measured, sweep: str) -> Estimate:
        """Mean agreement in percent; in points beyond the reference's where the model is ranked beyond one."""
        reference = self._reference_of(model)
        curve = model.curves[sweep]
        return difference(curve, reference[sweep]) if reference else agreement_of(curve)

    @property
    def pairs(self) -> list[tuple[Measured, Measured]]:
        """Which models are subtracted: each and the reference, or, without one, two models if there are just two."""
        if self.reference is None:
            return [(self.models[0], self.models[1])] if len(self.models) == 2 else []
        reference = next(model for model in self.models if model.name == self.reference)
        return [(model, reference) for model in self.models if model is not reference]


def short_names(names: Sequence[str]) -> list[str]:
    """The last two parts of each path or Hub id; whole names where those are the same for two."""
    tails = ["/".join(name.rstrip("/").split("/")[-2:]) for name in names]
    return [tail if tails.count(tail) == 1 else name for tail, name in zip(tails, names, strict=True)]


def number(value: float, unit: str) -> str:
    """A strength with its unit, in three digits."""
    shown = f"{value:.3g}".replace("-", "−")
    if unit == "variance":
        return f"{unit} {shown}"
    return shown + ("" if unit in ("", "°", "×") else " ") + unit


def tolerated_text(sweep: Sweep, value: float | None) -> str:
    """How far a sweep is tolerated, with its unit: "12.3°", or "beyond 45°" where all that was measured is."""
    strength = sweep.strengths[-1] if value is None else value
    shown = (
        f"severity {strength:.{0 if value is None else 1}f}" if sweep.is_corruption else number(strength, sweep.unit)
    )
    return f"beyond {shown}" if value is None else shown


def headline(report: Report, model: Measured) -> dict[str, str]:
    """For each column of the headline table: the first and the last of the rankings, with their figures."""
    scores, relative = report.scores(model), report.is_relative(model)
    titles = {sweep.name: sweep.title for sweep in report.sweeps}

    def words(names: Sequence[str]) -> str:
        sign, unit = ("+", " points") if relative else ("", " %")
        return ", ".join(f"{titles[n]} ({report.points(model, n).text(sign)}{unit})" for n in names) or "–"

    row = {}
    for kind, corruptions in (("corruptions", True), ("primitives", False)):
        ranked = ranking(scores, report.sweeps, corruptions)
        count = min(_SHOWN_IN_HEADLINE, len(ranked) // 2 or len(ranked))
        row[f"{kind}_most"], row[f"{kind}_least"] = words(ranked[:count]), words(ranked[::-1][:count])
    return row


def verdict(report: Report) -> list[str]:
    """The first sentences: of the models that are subtracted from each other, then of all others by themselves."""
    short = dict(zip([m.name for m in report.models], short_names([m.name for m in report.models]), strict=True))
    sentences, told = [], set()
    for own, other in report.pairs:
        found = {sweep.name: difference(own.curves[sweep.name], other.curves[sweep.name]) for sweep in report.sweeps}
        sentences += compared(short[own.name], short[other.name], found, report.sweeps, report.num_images)
        told |= {own.name, other.name}
    for model in report.models:
        if model.name not in told:
            found = {sweep.name: agreement_of(model.curves[sweep.name]) for sweep in report.sweeps}
            sentences += alone(short[model.name], found, report.sweeps)
    return sentences


def summary_markdown(report: Report) -> str:
    """A short summary for a model card."""
    names = [model.name for model in report.models]
    short = dict(zip(names, map(escape, short_names(names)), strict=True))
    beyond_reference = f"; points are the difference from {short[report.reference]}" if report.reference else ""
    ranked = [
        [short[model.name], *(escape(text) for text in headline(report, model).values())] for model in report.models
    ]
    primitives = [escape(found.primitive.replace("_", " ")) for found in report.models[0].widest.ranges]
    widest = [
        [short[model.name], *(f"{found.width:.2f} ({found.kl:.2f})" for found in model.widest.ranges)]
        for model in report.models
    ]
    return "\n\n".join(
        (
            *map(escape, verdict(report)),
            f"Measured on {report.num_images} unlabelled images of {escape(report.data)}: mean share of images whose "
            f"top-1 class stays, over the severities of a corruption or the range of a primitive{beyond_reference}. "
            "After ±: the 95 % margin over the images.",
            table(["model", "corruptions: most", "least", "primitives: most", "least"], ranked, numeric_from=5),
            "Widest range of each learned primitive with a mean KL of at most "
            f"{report.tolerance:g} nats, as a share of its full range (in brackets: the KL reached):",
            table(["model", *primitives], widest),
            "Curves, examples and the method are on [the whole page](invariance.html), the numbers in "
            "[invariance.json](invariance.json). The command:",
            f"{fenced(report.record['command'], 'bash')}\n",
        )
    )


def summary_text(report: Report) -> str:
    """The summary for a terminal."""
    lines = verdict(report)
    for model, name in zip(report.models, short_names([model.name for model in report.models]), strict=True):
        row = headline(report, model)
        kind = f", beyond {report.reference}" if report.is_relative(model) else ""
        lines.append(f"{name} (mean share of answers that stay{kind})")
        lines += [f"    {what.replace('_', ', '):20} {text}" for what, text in row.items()]
        widths = "  ".join(f"{r.primitive} {r.width:.2f} (KL {r.kl:.2f})" for r in model.widest.ranges)
        lines.append(f"    {'widest range':20} {widths}")
    return "\n".join(lines)


def _numbers_of(curve: Curve) -> dict[str, Any]:
    """A curve without the figures of single images, and with the margin of its mean agreement in points."""
    return {name: value for name, value in asdict(curve).items() if name != "kept"} | {
        "margin": agreement_of(curve).margin
    }


def as_numbers(report: Report) -> dict[str, Any]:
    """All numbers, ready for JSON."""
    described = ("name", "title", "unit", "is_corruption", "rest", "strengths", "description")
    models = [
        asdict(model)
        | {
            "curves": {name: _numbers_of(curve) for name, curve in model.curves.items()},
            "ranked_by": report.scores(model),
            "ranking": {
                "corruptions": ranking(report.scores(model), report.sweeps, True),
                "primitives": ranking(report.scores(model), report.sweeps, False),
            },
        }
        for model in report.models
    ]
    differences = []
    for own, other in report.pairs:
        found = {name: difference(curve, other.curves[name]) for name, curve in own.curves.items()}
        points = {name: {"points": one.value, "margin": one.margin} for name, one in found.items()}
        differences.append({"model": own.name, "less": other.name, "by_sweep": points})
    return {
        "data": report.data,
        "num_images": report.num_images,
        "image_size": report.examples.shape[-1],
        "level": LEVEL,
        "tolerance": report.tolerance,
        "reference": report.reference,
        "sweeps": [{name: getattr(sweep, name) for name in described} for sweep in report.sweeps],
        "models": models,
        "verdict": verdict(report),
        "differences": differences,
        **report.record,
    }
