"""A contact sheet of errors: pictures with what they are and what they were taken for."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from hf_transinv.figures.image_grids import LARGEST_MAGNIFIED_IMAGE
from hf_transinv.figures.palette import WRONG
from hf_transinv.figures.style import class_labels, save_figure

COLUMNS = 5
LONGEST_CAPTION = 21


def plot_errors(
    images: Tensor, errors: Sequence[tuple[int, int, float]], names: Sequence[str], path: str | Path
) -> Path:
    """Show pictures with the class above and the answer below, with its confidence.

    Args:
        images: at least one, uint8 [N, 3, H, W].
        errors: class, answer and confidence in [0, 1] of each.
        names: of the classes.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.
    """
    labels = class_labels(names, LONGEST_CAPTION)
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(max(1.45 * columns, 3.2), 1.85 * rows + 0.3), layout=ConstrainedLayoutEngine(h_pad=0.07))
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    is_small = images.shape[-1] <= LARGEST_MAGNIFIED_IMAGE
    pixels = images.cpu().permute(0, 2, 3, 1).numpy()
    for axes, image, (label, answer, confidence) in zip(panels, pixels, errors, strict=False):
        axes.imshow(image, interpolation="nearest" if is_small else "antialiased")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_title(labels[label], fontsize=7.5, pad=3)
        axes.set_xlabel(f"{labels[answer]}\n{100 * confidence:.0f} %", fontsize=7.5, color=WRONG, labelpad=3)
    for unused in panels[len(images) :]:
        unused.remove()
    figure.suptitle("Above: the class. Below: the answer and its confidence.", fontsize=8, x=0.01, ha="left")
    return save_figure(figure, path)
