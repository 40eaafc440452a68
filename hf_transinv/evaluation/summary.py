"""Scores of every image under every condition -> the numbers of a result, mCE among them.

mCE, the mean corruption error, has two definitions in the literature. With E(c, s) the top-1 error under corruption c
at severity s:

    CIFAR-C      mean over c and s of E(c, s)
    ImageNet-C   mean over c of sum_s E(c, s) / sum_s E_AlexNet(c, s)   (Hendrycks and Dietterich, ICLR 2019)

Both are over all 15 corruptions at all 5 severities. A mean over fewer is not called mCE here.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from hf_transinv.augment.corruptions.severities import LARGEST_SMALL_IMAGE, SEVERITIES
from hf_transinv.evaluation.conditions import CLEAN, Augmented, Condition
from hf_transinv.evaluation.per_class import class_scores
from hf_transinv.evaluation.scores import all_scores, augmented_scores, calibration_error, top1

# AlexNet on ImageNet-C, in percent, mean over the severities: Hendrycks and Dietterich, ICLR 2019. The keys are the
# fifteen corruptions of the benchmark.
ALEXNET_ERRORS: MappingProxyType[str, float] = MappingProxyType(
    {
        "gaussian_noise": 88.6,
        "shot_noise": 89.4,
        "impulse_noise": 92.3,
        "defocus_blur": 82.0,
        "glass_blur": 82.6,
        "motion_blur": 78.6,
        "zoom_blur": 79.8,
        "snow": 86.7,
        "frost": 82.7,
        "fog": 81.9,
        "brightness": 56.5,
        "contrast": 85.3,
        "elastic_transform": 64.6,
        "pixelate": 71.8,
        "jpeg_compression": 60.7,
    }
)


def summary(
    scores: Mapping[Condition | Augmented, Tensor], label_names: Sequence[str], image_size: int, has_features: bool
) -> dict[str, Any]:
    """The part of `evaluate`'s result that follows from the scores.

    Args:
        scores: of each condition, the clean one among them, [N, 9].
        label_names: the classes that the model chose among.
        image_size: side of the corrupted images, in pixels.
        has_features: whether the model's features were known.
    """
    table: dict[str, dict[str, float]] = {}
    augmented: dict[str, dict[str, float | None]] = {}
    calibration = []
    for condition, rows in scores.items():
        if isinstance(condition, Augmented):
            augmented[condition.augmentation] = augmented_scores(rows, has_features)
        elif condition.corruption:
            table.setdefault(condition.corruption, {})[str(condition.severity)] = top1(rows)
            calibration.append(calibration_error(rows))
    for row in table.values():
        row["mean"] = _mean(row.values())
    return {
        "num_images": len(scores[CLEAN]),
        "clean": all_scores(scores[CLEAN], len(label_names)),
        "classes": class_scores(scores[CLEAN], label_names),
        "corruptions": table,
        "corruption_mean": _mean(row["mean"] for row in table.values()) if table else None,
        "corruption_ece": _mean(calibration) if table else None,
        "corruption_errors": corruption_errors(table, image_size),
        "augmented": augmented,
    }


def corruption_errors(table: Mapping[str, Mapping[str, float]], image_size: int) -> dict[str, dict[str, float | str]]:
    """The mean errors from a table of top-1, each with its definition.

    Args:
        table: corruption -> {"1": top-1 in percent, ..., "mean"}.
        image_size: side of the corrupted images, in pixels.

    Returns:
        Name -> {"percent", "definition"}: "mCE" if the table is complete, and "mCE_alexnet" if the images are also
        larger than 64 pixels; "mean_error" if the table is incomplete; nothing if it is empty.
    """
    if not table:
        return {}
    errors = {name: 100 - row["mean"] for name, row in table.items()}
    plain = _mean(errors.values())
    num_severities = len(next(iter(table.values()))) - 1
    if set(table) != set(ALEXNET_ERRORS) or num_severities != len(SEVERITIES):
        of = f"{len(table)} of the 15 corruptions, {num_severities} of the 5 severities"
        return {"mean_error": {"percent": plain, "definition": f"mean top-1 error over {of}; not an mCE"}}
    definition = "mean top-1 error over 15 corruptions x 5 severities, not normalised (the CIFAR-C convention)"
    measures: dict[str, dict[str, float | str]] = {"mCE": {"percent": plain, "definition": definition}}
    if image_size > LARGEST_SMALL_IMAGE:
        relative = 100 * _mean(errors[name] / error for name, error in ALEXNET_ERRORS.items())
        definition = "mean over 15 corruptions of the top-1 error divided by AlexNet's (the ImageNet-C convention)"
        measures["mCE_alexnet"] = {"percent": relative, "definition": definition}
    return measures


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
