"""Scores of each class on clean images, the confusion matrix, and the most confident errors.

With n_ij the images of class i that the model takes for class j:

    recall of i         n_ii / sum_j n_ij, the accuracy on the images of class i
    precision of i      n_ii / sum_j n_ji
    F1 of i             2 n_ii / (sum_j n_ij + sum_j n_ji), the harmonic mean of the two
    macro F1            mean of F1 over the classes that have images
    balanced accuracy   mean of recall over the classes that have images

A class that the model never answers has no precision, and F1 0. A class without images has neither recall nor F1, and
is left out of both means. (scikit-learn's macro F1 counts such a class, with F1 0, if the model answers it.)
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_transinv.evaluation.scores import column

NUM_ERRORS = 20


def class_scores(scores: Tensor, label_names: Sequence[str]) -> dict[str, Any]:
    """Scores [N, 9] of clean images -> the fields of `result.ClassScores`; shares in percent.

    Args:
        scores: see `evaluation.scores`.
        label_names: the C classes that the model chose among.
    """
    num_classes = len(label_names)
    labels, predicted = column(scores, "label").long(), column(scores, "predicted").long()
    support, answered, right = (
        torch.bincount(classes, minlength=num_classes).tolist()
        for classes in (labels, predicted, labels[labels == predicted])
    )
    # Pairs that occur: a table of all C x C would take 3.5 GB with ImageNet-21k's classes.
    pairs, counts = torch.unique(labels * num_classes + predicted, return_counts=True)
    f1 = [200 * hits / (own + said) if own else None for hits, own, said in zip(right, support, answered, strict=True)]
    recall = _shares(right, support)
    return {
        "names": list(label_names),
        "support": support,
        "recall": recall,
        "precision": _shares(right, answered),
        "f1": f1,
        "macro_f1": _mean(f1),
        "balanced_accuracy": _mean(recall),
        "confusion": [
            [pair // num_classes, pair % num_classes, count]
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        ],
        "errors": [
            [row, int(labels[row]), int(predicted[row]), round(column(scores, "confidence")[row].item(), 4)]
            for row in most_confident_errors(scores)
        ],
    }


def most_confident_errors(scores: Tensor) -> list[int]:
    """Rows of scores [N, 9], on the CPU, of at most `NUM_ERRORS` images: the surest first, of equals the first."""
    confidence = column(scores, "confidence").nan_to_num(-1).masked_fill(column(scores, "top1") > 0, -1)
    rows = confidence.argsort(descending=True, stable=True)[:NUM_ERRORS]
    return rows[confidence[rows] >= 0].tolist()


def _shares(parts: Sequence[int], wholes: Sequence[int]) -> list[float | None]:
    return [100 * part / whole if whole else None for part, whole in zip(parts, wholes, strict=True)]


def _mean(values: Iterable[float | None]) -> float:
    present = [value for value in values if value is not None]
    return math.fsum(present) / len(present)
