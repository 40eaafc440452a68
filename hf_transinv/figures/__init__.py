"""Figures: r, q and p over training, images under each learned primitive, probes, corruption heatmaps."""

from hf_transinv.figures.corruption_heatmap import plot_corruption_heatmap
from hf_transinv.figures.image_grids import LARGEST_MAGNIFIED_IMAGE, plot_augmentations, plot_examples
from hf_transinv.figures.probe_bars import plot_probe
from hf_transinv.figures.selection_history import plot_history
from hf_transinv.figures.style import COLORS, LINE_STYLES, save_figure

__all__ = [
    "COLORS",
    "LARGEST_MAGNIFIED_IMAGE",
    "LINE_STYLES",
    "plot_augmentations",
    "plot_corruption_heatmap",
    "plot_examples",
    "plot_history",
    "plot_probe",
    "save_figure",
]
