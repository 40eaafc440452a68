"""Figures: of a run, of what it learned, and of evaluations."""

from hf_transinv.figures.class_bars import plot_classes
from hf_transinv.figures.confusion_matrix import plot_confusion
from hf_transinv.figures.corruption_heatmap import plot_corruption_heatmap
from hf_transinv.figures.error_sheet import plot_errors
from hf_transinv.figures.image_grids import LARGEST_MAGNIFIED_IMAGE, plot_augmentations, plot_examples
from hf_transinv.figures.learning_curves import plot_curves
from hf_transinv.figures.palette import COLORS, method_styles, model_style
from hf_transinv.figures.probe_bars import plot_probe
from hf_transinv.figures.run_summary import plot_summary
from hf_transinv.figures.selection_history import plot_history
from hf_transinv.figures.style import save_figure

__all__ = [
    "COLORS",
    "LARGEST_MAGNIFIED_IMAGE",
    "method_styles",
    "model_style",
    "plot_augmentations",
    "plot_classes",
    "plot_confusion",
    "plot_corruption_heatmap",
    "plot_curves",
    "plot_errors",
    "plot_examples",
    "plot_history",
    "plot_probe",
    "plot_summary",
    "save_figure",
]
