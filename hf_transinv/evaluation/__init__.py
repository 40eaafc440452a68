"""How good a classifier is: accuracy and calibration on clean images, and on corrupted and augmented ones.

The corrupted images are a pure function of (images, seed, corruption, severity, batch size, batch number): the numbers
of a batch are drawn on the CPU from a seed of its own. Or they are read from a folder, as the authors of CIFAR-C and
ImageNet-C publish them. The augmented images, of Augmentation Invariant Training, are one fixed test set a seed,
whatever the size of the batches.

A batch is decoded once and classified under every condition. Of n processes each takes every n-th batch, and what is
gathered is a few numbers an image, in the order of the images: the result is the same, digit for digit, with any
number of processes, and nothing is padded.

The rule of the benchmark (Hendrycks and Dietterich, ICLR 2019): a model evaluated on a corruption may not have been
trained on it. Where it was, the tables say so.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from tqdm import tqdm

from hf_transinv.augment.corruptions import check_corruption
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError
from hf_transinv.evaluation.conditions import CLEAN, Augmented, Condition, check_augmentations
from hf_transinv.evaluation.corrupted_folders import Opened, open_corrupted_folder
from hf_transinv.evaluation.corruption_table import corruption_markdown, evaluation_markdown
from hf_transinv.evaluation.scorer import Scorer
from hf_transinv.evaluation.splits import Split, TensorSplit
from hf_transinv.evaluation.summary import summary
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
    show_progress: bool = True,
) -> dict[str, Any]:
    """Scores on a split: clean, and top-1 (percent) under each corruption at each severity and each augmentation.

    Args:
        classifier: a Classifier, bare or as the accelerator has wrapped it, on its device already. It evaluates in
            eval mode and comes back in the mode it had.
        split: the same on every process: resident, or read as it goes (see evaluation.splits).
        accelerator: shares the batches among its processes and sets the precision; None: this process alone, the
            precision of the model.
        corruptions: names of hf_transinv.augment.corruptions.CORRUPTIONS.
        severities: 1 to 5.
        augmentations: names of evaluation.conditions.AUGMENTATIONS; with each, how far it moves the model's answers.
        batch_size: images a batch. Corrupted images depend on it.
        seed: of the corruptions and augmentations.
        corrupted_folder: reads the corrupted images, with labels of their own, in place of corrupting the split's.
        frost_folder: the authors' pictures of frost; None: see hf_transinv.augment.corruptions.
        match_labels: map the split's classes to the classifier's of the same names and evaluate among those alone.
        trust_label_order: class k of the split is column k of the classifier, whatever they are called.
        show_progress: whether the main process draws a bar.

    Returns:
        Plain numbers, ready for JSON: {"num_images", "clean": {"top1", "nll", "top5" (with more than five classes),
        "ece", "brier"}, "corruptions": {name: {"1": top1, ..., "mean"}}, "corruption_mean" and "corruption_ece"
        (None without), "corruption_errors": {name: {"percent", "definition"}}, "augmented": {name: {"top1", "kl",
        "feature_distance" (None where the model's last layer is not known)}}, "severities", "seed"}. Percent: top1,
        top5, corruption_mean; see evaluation.scores for the others and evaluation.summary for mCE.

    Raises:
        InputError: unknown corruption, severity or augmentation, an empty split, classes that do not fit the
            classifier's, or a folder that does not have what was asked for.
    """
    conditions = [Condition(name, severity) for name in corruptions for severity in severities]
    _check(conditions, batch_size)
    check_augmentations(augmentations)
    rows: Split = TensorSplit(split) if isinstance(split, ResidentSplit) else split
    model = cast(Classifier, accelerator.unwrap_model(classifier) if accelerator else classifier)
    columns = class_columns(model.label_names, model.num_classes, rows.label_names, match_labels, trust_label_order)
    folder: Opened = {}
    if corrupted_folder is not None and conditions:
        folder = open_corrupted_folder(corrupted_folder, conditions, rows.label_names)
    is_quiet = not show_progress or (accelerator is not None and not accelerator.is_main_process)
    with _evaluating(model), torch.inference_mode(), tqdm(unit="batch", disable=is_quiet) as progress:
        options = {"batch_size": batch_size, "seed": seed, "frost_folder": frost_folder, "progress": progress}
        scorer = Scorer(model, columns, accelerator, **options)
        made: list[Condition | Augmented] = [*([] if folder else conditions), *map(Augmented, augmentations)]
        scores, image_size = scorer.score(rows, [CLEAN, *made])
        for condition, opened in folder.items():
            of_condition, image_size = scorer.score(opened(), [condition], are_corrupted=True)
            scores |= of_condition
    found = summary(scores, len(rows.label_names), image_size, scorer.last_layer is not None)
    return found | {"severities": list(severities), "seed": seed}


def _check(conditions: Sequence[Condition], batch_size: int) -> None:
    for condition in conditions:
        check_corruption(condition.corruption, (condition.severity,))
    if batch_size < 1:
        raise InputError(f"Evaluation batches of {batch_size} images: expected at least 1.")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, every module's own mode restored on the way out; as written, even where its training is
    compiled: another mode and batch size would be compiled anew, for minutes.
    """
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in training:
            module.training = mode
