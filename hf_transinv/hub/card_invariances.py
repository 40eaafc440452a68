"""What a card says of teachers and of the augmentations that were learned against them, in tables and words.

Where nothing was learned or recorded, a function returns an empty text.
"""

from collections.abc import Sequence

from hf_transinv.augment.magnitudes import ParameterRange
from hf_transinv.formats.markdown import code, escape, number, span, table
from hf_transinv.hub.card_about import teacher_link
from hf_transinv.hub.recorded_run import Run

_PRIMITIVES = {
    "contrast_brightness": "contrast and brightness",
    "geometric": "affine warps",
    "gaussian_blur": "Gaussian blur",
    "gaussian_noise": "Gaussian noise",
    "colour_matrix": "mixed colours",
    "tone_curve": "bent tones",
    "elastic": "elastic warps",
    "random_filter": "filters",
    "soft_cutout": "soft cutout",
}
_IN_TABLE_ONLY = ("width : height", "shear")  # their figures say little to a reader
_LEAST_SHARE = 0.05  # of a teacher's images: rarer primitives are in the table only
_SHOWN_AS_ZERO = 0.005  # smaller p are written as 0.00


def teachers_table(run: Run) -> str:
    """One row per teacher: what it is, its r and q, and p of each primitive; columns without entries are left out."""
    if not run.teachers:
        return ""
    learned = run.main.learned
    columns = {
        "architecture": [code(known.architecture) if known.architecture is not None else "" for known in run.teachers],
        "classes": [str(known.num_classes) if known.num_classes is not None else "" for known in run.teachers],
    }
    columns |= {
        name: [f"{value:.2f}" for value in values] for name, values in (("r", learned.r), ("q", learned.q)) if values
    }
    if learned.p:
        for index, name in enumerate(run.config.primitives):
            columns[f"p: {_primitive(name)}"] = [_probability(p, index) for p in learned.p]
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    rows = [[teacher_link(known), *cells] for known, *cells in zip(run.teachers, *columns.values(), strict=True)]
    return table(["teacher", *columns], rows, 2 if "architecture" in columns else 1)


def deformations(run: Run) -> str:
    """A list: for each teacher, the deformations that its augmentation applies, how often and how strongly."""
    learned, lines = run.main.learned, []
    magnitudes = run.magnitudes or ({},) * len(run.teachers)
    if not run.teachers or not learned.p:
        return ""
    for teacher, p, q, of_teacher in zip(run.teachers, learned.p, learned.q, magnitudes, strict=True):
        shares = [(q * share, name) for share, name in zip(p, run.config.primitives, strict=True)]
        told = [(share, name) for share, name in sorted(shares, reverse=True) if share >= _LEAST_SHARE]
        who, rest = teacher_link(teacher), f"{100 * (1 - q):.0f} % of its images stayed as they are"
        few = "" if told else f", and each primitive was applied to less than {100 * _LEAST_SHARE:.0f} % of them"
        lines.append(f"- {who[0].upper()}{who[1:]}: {rest}{few}")
        lines += [
            f"  - {_primitive(name)} in {100 * share:.0f} % of its images{_strength(of_teacher.get(name, ()))}"
            for share, name in told
        ]
    return "\n".join(lines)


def magnitudes_table(run: Run) -> str:
    """The 5, 50 and 95 % quantiles of every learned parameter."""
    rows = []
    for teacher, of_teacher in zip(run.teachers, run.magnitudes, strict=False):
        for name, parameters in of_teacher.items():
            for parameter in parameters:
                unit = f" ({escape(parameter.unit)})" if parameter.unit else ""
                reach = span(parameter.low, parameter.high)
                drawn = [number(value) for value in parameter.quantiles]
                what = f"{_primitive(name)}: {escape(parameter.name)}{unit}"
                rows.append([teacher_link(teacher), what, *drawn, reach, number(parameter.rest)])
    return table(["teacher", "parameter", "5 %", "50 %", "95 %", "reach", "no effect at"], rows, 2) if rows else ""


def _probability(p: Sequence[float], index: int) -> str:
    """One of a teacher's p: the largest in bold, one that is written as 0.00 small."""
    shown = f"{p[index]:.2f}"
    if p[index] == max(p):
        return f"**{shown}**"
    return f"<sub>{shown}</sub>" if p[index] < _SHOWN_AS_ZERO else shown


def _primitive(name: str) -> str:
    corruption, colon, severity = name.partition(":")
    if colon:
        return escape(f"{corruption.replace('_', ' ')} at severity {severity}")
    return _PRIMITIVES.get(name, escape(name))


def _strength(parameters: Sequence[ParameterRange]) -> str:
    """From the 5 % to the 95 % quantile of each parameter."""
    told = []
    for parameter in parameters:
        if parameter.name not in _IN_TABLE_ONLY:
            low, _, high = parameter.quantiles
            unit = parameter.unit if parameter.unit in ("", "°", "×") else f" {escape(parameter.unit)}"
            told.append(f"{escape(parameter.name)} {span(low, high)}{unit}")
    return f": {', '.join(told)}" if told else ""
