"""The first sentences of the report: what a model tolerates better than another, or best of all, and how sure that is.

A margin says what another draw of as many images would change. Each image has one figure per sweep, the share of the
range over which it keeps its class: the severities of one image are not independent. For two models it is the
difference of their figures for the same image, as in a paired test.

    margin = 1.96 standard errors of the mean over the images: a 95 % interval

Without further care the margin would be 0 where no image changed. So the standard error is that of the images and of
a few pseudo-images: for one model two that always keep their class and two that never do (Agresti and Coull, The
American Statistician 1998), for a difference one of +1 and one of -1 (Bonett and Price, Journal of Educational and
Behavioral Statistics 2012).

The best of 26 differences is large by chance too. A difference is named in a verdict only if it holds for all compared
changes at once (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from hf_transinv.formats.markdown import words
from hf_transinv.invariance.sweeps import Curve, Sweep

_NAMED = 2
_KEEPS_OR_CHANGES = (0.0, 0.0, 1.0, 1.0)
_EITHER_BETTER = (-1.0, 1.0)


@dataclass(frozen=True)
class Estimate:
    """A mean over the images.

    Attributes:
        value: in percent, or in points for a difference.
        error: its standard error, in points.
    """

    value: float
    error: float

    @property
    def margin(self) -> float:
        """Half the width of a 95 % interval, in points."""
        return NormalDist().inv_cdf(0.975) * self.error

    def text(self, sign: str = "") -> str:
        """As "55 ± 2"; with one decimal where the margin is below 1 point.

        Args:
            sign: "+" to show the sign of a positive value too; 0 has none.
        """
        decimals = 1 if self.margin < 0.95 else 0
        value = round(self.value, decimals)
        shown = f"{value:{sign}.{decimals}f}" if value else f"{0:.{decimals}f}"
        return f"{shown} ± {self.margin:.{decimals}f}".replace("-", "−")


def estimate(values: Sequence[float], added: Sequence[float]) -> Estimate:
    """The mean of a figure in [-1, 1] per image.

    Args:
        values: one per image.
        added: figures of pseudo-images, for the standard error alone.
    """
    spread = torch.tensor([*values, *added], dtype=torch.float64)
    error = (spread.var(correction=0) / len(spread)).sqrt().item()
    return Estimate(100 * sum(values) / len(values), 100 * error)


def agreement_of(curve: Curve) -> Estimate:
    """The mean agreement in percent."""
    return estimate(curve.kept, _KEEPS_OR_CHANGES)


def difference(own: Curve, other: Curve) -> Estimate:
    """The mean agreement less that of another model on the same images, in points."""
    return estimate([a - b for a, b in zip(own.kept, other.kept, strict=True)], _EITHER_BETTER)


def compared(name: str, other: str, found: dict[str, Estimate], sweeps: Sequence[Sweep], num_images: int) -> list[str]:
    """What a model tolerates better and worse than another: a sentence on corruptions, and one on single quantities.

    Args:
        name: of the model.
        other: of the model it is compared with.
        found: the differences by the sweeps' names.
        sweeps: all that were measured.
        num_images: they were measured on.
    """
    sentences = []
    sure = NormalDist().inv_cdf(1 - 0.025 / len(found))
    for group, kind, nothing in _groups(sweeps):
        named = {sweep.title: found[sweep.name] for sweep in group}
        named = {title: one for title, one in named.items() if abs(one.value) > sure * one.error}
        ordered = sorted(named, key=lambda title: -named[title].value)
        better = [title for title in ordered if named[title].value > 0][:_NAMED]
        worse = [title for title in reversed(ordered) if named[title].value < 0][:_NAMED]
        told = []
        if better:
            told.append(f"{words([_points(title, named[title]) for title in better])} better than {other}")
        if worse:
            than = "" if better else f" than {other}"
            told.append(f"{words([_points(title, named[title]) for title in worse])} worse{than}")
        if told:
            sentences.append(f"{kind} {name} tolerates {', and '.join(told)}.")
        else:
            sentences.append(
                f"{nothing} is tolerated better or worse by {name} than by {other}, "
                f"as far as {num_images} images show."
            )
    return sentences


def alone(name: str, found: dict[str, Estimate], sweeps: Sequence[Sweep]) -> list[str]:
    """What a model tolerates best and least: a sentence on corruptions, and one on single quantities."""
    sentences = []
    for group, kind, _ in _groups(sweeps):
        ordered = sorted(group, key=lambda sweep: -found[sweep.name].value)
        shown = [f"{sweep.title} ({found[sweep.name].text()} % of the images)" for sweep in ordered]
        least = f" and least often under {shown[-1]}" if len(shown) > 1 else ""
        sentences.append(f"{kind} {name} keeps its prediction most often under {shown[0]}{least}.")
    return sentences


def _groups(sweeps: Sequence[Sweep]) -> list[tuple[list[Sweep], str, str]]:
    """Corruptions and single quantities, where there are any: the sweeps, and how sentences on them begin."""
    groups = [
        ([sweep for sweep in sweeps if sweep.is_corruption], "Of the corruptions,", "No corruption"),
        ([sweep for sweep in sweeps if not sweep.is_corruption], "Of the single quantities,", "No single quantity"),
    ]
    return [group for group in groups if group[0]]


def _points(title: str, one: Estimate) -> str:
    return f"{title} {Estimate(abs(one.value), one.error).text()} points"
