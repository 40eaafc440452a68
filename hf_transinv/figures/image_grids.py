"""Images beside each other: under each learned primitive, and draws of a learned augmentation.

`plot_augmentations` is figure 4 of the TransInv paper (Kurioka et al., ICONIP 2024): one block per teacher, with the
original images first, then one column per primitive with its selection probability below.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from hf_transinv.errors import InputError
from hf_transinv.figures.palette import SOFT, STRONG, change_color, model_style, text_color
from hf_transinv.figures.style import save_figure, short

LONGEST_COLUMN_TITLE = 14
SHOWN_AS_ZERO = 0.005  # smaller p are written as 0.00
LARGEST_MAGNIFIED_IMAGE = 64  # pixels; larger images are shrunk on the page, where nearest neighbours would alias


def _column(images: Tensor) -> np.ndarray:
    """Images [N, 3, H, W] in [0, 1] one below the other, with white between: [N (H + gap) - gap, W, 3]."""
    pixels = images.detach().float().clamp(0, 1).cpu().permute(0, 2, 3, 1).numpy()
    gap = max(1, pixels.shape[1] // 16)
    padded = np.pad(pixels, ((0, 0), (0, gap), (0, 0), (0, 0)), constant_values=1)
    return padded.reshape(-1, *pixels.shape[2:])[:-gap]


def draw_column(axes: Axes, images: Tensor) -> None:
    """Images [N, 3, H, W] in [0, 1] one below the other, without ticks; small ones with their pixels as squares."""
    is_small = images.shape[-2] <= LARGEST_MAGNIFIED_IMAGE
    axes.imshow(_column(images), interpolation="nearest" if is_small else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])


def _show(axes: Axes, images: Tensor, caption: str, weight: str = "normal") -> None:
    draw_column(axes, images)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(caption, fontsize=9, fontweight=weight, labelpad=3)


def _shrink(axes: Axes) -> None:
    """Show what an axes has at half its size, in the middle, and its caption in grey."""
    for limits, set_limits in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        low, high = limits
        set_limits(low - (high - low) / 2, high + (high - low) / 2)
    axes.xaxis.label.set_color(text_color(SOFT))
    axes.xaxis.label.set_fontsize(7)


def plot_augmentations(
    original: Tensor,
    augmented: Tensor,
    path: str | Path,
    *,
    teacher_names: Sequence[str],
    primitive_names: Sequence[str],
    p: Sequence[Sequence[float]],
    q: Sequence[float],
) -> Path:
    """Show each primitive of each teacher on a few images, with its selection probability (the largest in bold).

    Primitives that are hardly ever chosen, with a p that is written as 0.00, are small. Labels have the colours of
    `palette`: that of the teacher, and that of the primitive's family.

    Args:
        original: a few images, such as 4, [N, 3, H, W] in [0, 1].
        augmented: the images under each primitive, [L, K, N, 3, H, W].
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).
        teacher_names: L names.
        primitive_names: K names.
        p: probability of each primitive, [L][K].
        q: probability of augmenting at all, [L]; 1 - q is shown below the originals.

    Returns:
        The path.

    Raises:
        InputError: the shape of `augmented` does not fit the names and `original`.
    """
    expected = (len(teacher_names), len(primitive_names), *original.shape)
    if tuple(augmented.shape) != expected:
        raise InputError(
            f"Augmented images of shape {list(augmented.shape)}: expected [L, K, N, 3, H, W] = {list(expected)}."
        )
    num_teachers, num_primitives, num_images, _, height, width = expected
    figure = Figure(
        figsize=(1.15 * (num_primitives + 1) + 0.5, num_teachers * (1.1 * num_images * height / width + 0.5) + 0.5),
        layout=ConstrainedLayoutEngine(h_pad=0.07),
    )
    grid = figure.subplots(num_teachers, num_primitives + 1, squeeze=False)
    for k, row in enumerate(grid):
        _show(row[0], original, f"$1 - q$ = {1 - q[k]:.2f}")
        row[0].set_ylabel(short(teacher_names[k]), fontsize=9, color=text_color(model_style(k)[0]))
        for i, axes in enumerate(row[1:]):
            weight = "bold" if p[k][i] == max(p[k]) else "normal"
            _show(axes, augmented[k, i], f"$p_{{{i + 1}}}$ = {p[k][i]:.2f}", weight)
            if p[k][i] < SHOWN_AS_ZERO:
                _shrink(axes)
    colors = [text_color(color) for color in (STRONG, *map(change_color, primitive_names))]
    for axes, title, color in zip(grid[0], ("original", *primitive_names), colors, strict=True):
        told = textwrap.fill(title.replace("_", " "), LONGEST_COLUMN_TITLE, break_long_words=False)
        axes.set_title(told, fontsize=9, color=color)
    return save_figure(figure, path)


def plot_examples(original: Tensor, augmented: Tensor, path: str | Path) -> Path:
    """Show images and several draws of a learned augmentation of them, one column per draw.

    Args:
        original: [N, 3, H, W] in [0, 1].
        augmented: [draws, N, 3, H, W] in [0, 1].
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.
    """
    columns = [("image", original), *((str(index), images) for index, images in enumerate(augmented, 1))]
    size = (1.1 * len(columns), 1.1 * len(original) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    for axes, (caption, images) in zip(figure.subplots(1, len(columns)), columns, strict=True):
        _show(axes, images, caption)
    return save_figure(figure, path)
