"""The scores of classes as Markdown."""

from hf_transinv.evaluation.result import ClassScores
from hf_transinv.formats.markdown import escape, table

MOST_CLASSES = 20
"""More are not all listed."""
NUM_WORST = 5


def class_markdown(classes: ClassScores) -> str:
    """A sentence with macro F1 and balanced accuracy, and a table of all classes, or, of many, of the worst ones."""
    present = [number for number, images in enumerate(classes.support) if images]
    num_classes = len(classes.names)
    absent = "" if len(present) == num_classes else f", over the {len(present)} of {num_classes} classes with images"
    shown, which = list(range(num_classes)), "By class"
    if num_classes > MOST_CLASSES:
        shown = sorted(present, key=lambda number: classes.f1[number] or 0.0)[:NUM_WORST]
        which = f"The {len(shown)} classes with the lowest F1"
    rows = [
        [
            escape(classes.names[number]),
            str(classes.support[number]),
            *(_percent(values[number]) for values in (classes.recall, classes.precision, classes.f1)),
        ]
        for number in shown
    ]
    means = f"Macro F1 {classes.macro_f1:.1f} %, balanced accuracy {classes.balanced_accuracy:.1f} %{absent}."
    return f"{means} {which}, in percent:\n\n{table(['class', 'images', 'recall', 'precision', 'F1'], rows)}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
