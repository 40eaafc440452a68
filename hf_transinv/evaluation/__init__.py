"""Evaluation of a classifier: accuracy, classes and calibration on clean, corrupted and augmented images.

Corrupted images are a pure function of (images, seed, corruption, severity, batch size, batch number): the random
numbers of a batch are drawn on the CPU from its own seed. Or they are read from a folder, as the authors of CIFAR-C
and ImageNet-C publish them. The augmented images, of Augmentation Invariant Training, are one fixed test set per seed,
for any batch size.

A batch is decoded once and classified under every condition. Each of n processes takes every n-th batch. A few numbers
per image are gathered, in the order of the images and without padding, so the result is identical for any number of
processes.

The benchmark (Hendrycks and Dietterich, ICLR 2019) requires that a model is not trained on the corruptions that it is
evaluated on. The tables mark those that it was trained on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from hf_transinv.augment.corruptions import check_corruption
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError
from hf_transinv.evaluation.conditions import CLEAN, Augmented, Condition, check_augmentations
from hf_transinv.evaluation.corrupted_folders import Opened, open_corrupted_folder
from hf_transinv.evaluation.corruption_table import corruption_markdown, evaluation_markdown
from hf_transinv.evaluation.error_pictures import ErrorPictures
from hf_transinv.evaluation.scorer import Scorer
from hf_transinv.evaluation.splits import Split, as_split
from hf_transinv.evaluation.summary import summary
from hf_transinv.formats.terminal import say, stage_bar
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.labels import class_columns

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Condition", "corruption_markdown", "evaluate", "evaluation_markdown"]


def evaluate(
    classifier: nn.Module,
    split: ResidentSplit | Split,
    *,
    accelerator: "Accelerator | None" = None,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
    augmentations: Sequence[str] = (),
    batch_size: int = 500,
    seed: int = 0,
    corrupted_folder: str | Path | None = None,
    frost_folder: str | None = None,
    match_labels: bool = False,
    trust_label_order: bool = False,
    error_pictures: ErrorPictures | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Score a classifier on clean images, under each corruption at each severity, and under each augmentation.

    Args:
        classifier: a Classifier, bare or wrapped by the accelerator, on its device. It is evaluated in eval mode; its
            modules' modes are restored afterwards.
        split: the same on every process: resident, or read batch by batch (see evaluation.splits).
        accelerator: shares the batches among its processes and sets the precision; None for this process alone and
            the precision of the model.
        corruptions: names of hf_transinv.augment.corruptions.CORRUPTIONS.
        severities: 1 to 5.
        augmentations: names of evaluation.conditions.AUGMENTATIONS.
        batch_size: images per batch. Corrupted images depend on it.
        seed: of the corruptions and augmentations.
        corrupted_folder: of corrupted images with their own labels, used instead of corrupting those of the split.
        frost_folder: of the authors' photographs of frost; None for synthetic textures.
        match_labels: whether to match the split's classes to the classifier's by name, and to evaluate among those.
        trust_label_order: whether to take class k of the split for column k of the classifier, whatever their names.
        error_pictures: keeps the pictures of the most confident errors; None: they are not kept.
        show_progress: whether the main process shows a progress bar.

    Returns:
        Plain numbers, ready for JSON: {"num_images", "clean": {"top1", "nll", "top5" (with more than five classes),
        "ece", "brier"}, "classes": scores of each class on clean images, the confusion matrix and the most confident
        errors (see evaluation.result.ClassScores), "corruptions": {name: {"1": top1, ..., "mean"}}, "corruption_mean"
        and "corruption_ece" (None without corruptions), "corruption_errors": {name: {"percent", "definition"}},
        "augmented": {name: {"top1", "kl", "feature_distance" (None if the model's last layer is unknown)}},
        "severities", "seed"}. top1, top5 and corruption_mean are percentages; see evaluation.scores for the others
        and evaluation.summary for mCE.

    Raises:
        InputError: a corruption, severity or augmentation is unknown, the split is empty, its classes do not fit the
            classifier's, or the folder lacks some of the images.
    """
    conditions = [Condition(name, severity) for name in corruptions for severity in severities]
    _check(conditions, batch_size)
    check_augmentations(augmentations)
    rows = as_split(split)
    model = cast(Classifier, accelerator.unwrap_model(classifier) if accelerator else classifier)
    columns = class_columns(model.label_names, model.num_classes, rows.label_names, match_labels, trust_label_order)
    folder: Opened = {}
    if corrupted_folder is not None and conditions:
        folder = open_corrupted_folder(corrupted_folder, conditions, rows.label_names)
    is_quiet = not show_progress or (accelerator is not None and not accelerator.is_main_process)
    asked = 1 + len(conditions) + len(augmentations)
    count = None if rows.num_images is None else rows.num_images * asked
    if not is_quiet:
        images = "images" if rows.num_images is None else f"{rows.num_images:,} images"
        say("evaluating", f"{images} under {asked} condition{'s' * (asked > 1)}, the clean one included")
    bar = stage_bar(count, "evaluating", "img", not is_quiet, leave=True)
    with _evaluating(model), torch.inference_mode(), bar as progress:
        scorer = Scorer(
            model,
            columns,
            accelerator,
            batch_size=batch_size,
            seed=seed,
            frost_folder=frost_folder,
            error_pictures=error_pictures,
            progress=progress,
        )
        made: list[Condition | Augmented] = [*([] if folder else conditions), *map(Augmented, augmentations)]
        scores, image_size = scorer.score(rows, [CLEAN, *made])
        for condition, opened in folder.items():
            of_condition, image_size = scorer.score(opened(), [condition], are_corrupted=True)
            scores |= of_condition
    found = summary(scores, rows.label_names, image_size, scorer.last_layer is not None)
    return found | {"severities": list(severities), "seed": seed}


def _check(conditions: Sequence[Condition], batch_size: int) -> None:
    for condition in conditions:
        check_corruption(condition.corruption, (condition.severity,))
    if batch_size < 1:
        raise InputError(f"Evaluation batches of {batch_size} images: expected at least 1.")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, and restore every module's mode afterwards.

    The model runs uncompiled, even if it is compiled for training: another mode and batch size would be compiled
    anew, which takes minutes.
    """
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in training:
            module.training = mode
