"""The figures of an evaluation: which classes are confused, how well each is recognised, the most confident errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_transinv.evaluation.result import Result
from hf_transinv.figures import plot_classes, plot_confusion, plot_errors
from hf_transinv.formats.typed_json import read_as


def draw_classes(result: Mapping[str, Any], error_images: Tensor | None, folder: Path) -> None:
    """Write confusion.png, per_class.png and, where there are errors, errors.png.

    Args:
        result: what `evaluate` returned; nothing is drawn of one that earlier versions wrote, without classes.
        error_images: the images of its errors, in their order, uint8 [n, 3, H, W]; None where there are none.
        folder: of the figures.
    """
    classes = read_as(Result, result, "results").classes
    if classes is None:
        return
    plot_confusion(classes.confusion, classes.support, classes.names, folder / "confusion.png")
    plot_classes(classes.recall, classes.f1, classes.support, classes.names, folder / "per_class.png")
    if error_images is not None:
        plot_errors(error_images, [error[1:] for error in classes.errors], classes.names, folder / "errors.png")
