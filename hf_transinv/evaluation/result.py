"""What `evaluate` returns, with types: for the tables and cards that read it."""

from collections.abc import Collection
from dataclasses import dataclass, field

from hf_transinv.errors import InputError

ERROR_TITLES = {"mCE": "mCE", "mCE_alexnet": "mCE (AlexNet = 100)", "mean_error": "mean error"}
"""The errors under corruption (see `evaluation.summary`): name -> title of a column."""


@dataclass(frozen=True)
class CleanScores:
    """Scores on the images as they are; None: not measured.

    Attributes:
        top1: accuracy in percent.
        nll: mean negative log-likelihood, in nats.
        top5: percent.
        ece: expected calibration error, in [0, 1].
        brier: Brier score, in [0, 2].
    """

    top1: float
    nll: float | None = None
    top5: float | None = None
    ece: float | None = None
    brier: float | None = None


@dataclass(frozen=True)
class ClassScores:
    """Scores of each of C classes on the images as they are, in percent (see `evaluation.per_class`).

    Attributes:
        names: of the classes.
        support: images of each class.
        recall: of each class; None: it has no images.
        precision: of each class; None: the model never answers it.
        f1: of each class; None: it has no images.
        macro_f1: mean of f1, without classes that have no images.
        balanced_accuracy: mean of recall, the same.
        confusion: the cells of the confusion matrix that are not 0: [class, answer, images], by their numbers.
        errors: the most confident ones, at most 20, the surest first: [image, class, answer, confidence], the image
            by its number in the split, from 0 on and without those that could not be decoded; confidence in [0, 1].
    """

    names: tuple[str, ...]
    support: tuple[int, ...]
    recall: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    macro_f1: float
    balanced_accuracy: float
    confusion: tuple[tuple[int, int, int], ...] = ()
    errors: tuple[tuple[int, int, int, float], ...] = ()

    def __post_init__(self) -> None:
        num_classes = len(self.names)
        for name in ("support", "recall", "precision", "f1"):
            if len(getattr(self, name)) != num_classes:
                raise InputError(f"{name}: expected {num_classes} entries, one per class")
        pairs = (*((cell[0], cell[1]) for cell in self.confusion), *((error[1], error[2]) for error in self.errors))
        if any(not 0 <= number < num_classes for pair in pairs for number in pair):
            raise InputError(f"confusion and errors: expected numbers of classes from 0 to {num_classes - 1}")
        if any(images > self.support[label] for label, _, images in self.confusion):
            raise InputError("confusion: expected at most as many images as the class has")
        if any(error[0] < 0 for error in self.errors):
            raise InputError("errors: expected numbers of images from 0 on")


@dataclass(frozen=True)
class AugmentedScores:
    """Scores on augmented images.

    Attributes:
        top1: accuracy in percent.
        kl: mean KL divergence of the predictions from those on the original images, in nats.
        feature_distance: mean Euclidean distance of the features from those of the original images; None where the
            model's last layer is not known.
    """

    top1: float
    kl: float
    feature_distance: float | None = None


@dataclass(frozen=True)
class CorruptionError:
    """A mean error over corruptions.

    Attributes:
        percent: its value.
        definition: in words.
    """

    percent: float
    definition: str


@dataclass(frozen=True)
class Result:
    """One model on one split.

    Attributes:
        clean: scores on clean images.
        num_images: images of the split.
        classes: scores of each class on clean images; None: not recorded.
        corruptions: top-1 in percent, corruption -> {severity: ..., "mean": over the severities}.
        corruption_mean: mean over the corruptions, in percent.
        corruption_ece: mean ECE under corruption, in [0, 1].
        corruption_errors: by the names of `ERROR_TITLES`.
        augmented: by augmentation.
        severities: of the corruptions.
        seed: of corruptions and augmentations.
    """

    clean: CleanScores
    num_images: int | None = None
    classes: ClassScores | None = None
    corruptions: dict[str, dict[str, float]] = field(default_factory=dict)
    corruption_mean: float | None = None
    corruption_ece: float | None = None
    corruption_errors: dict[str, CorruptionError] = field(default_factory=dict)
    augmented: dict[str, AugmentedScores] = field(default_factory=dict)
    severities: tuple[int, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, by_severity in self.corruptions.items():
            if "mean" not in by_severity:
                raise InputError(f"corruptions.{name}.mean is missing")

    def mean_over(self, corruptions: Collection[str], column: str = "mean") -> float | None:
        """Mean top-1 over some corruptions; None when one of them was not measured, or there are none.

        A mean over other corruptions than those of the rows beside it would mislead.

        Args:
            corruptions: their names.
            column: a severity, or "mean".
        """
        rows = [self.corruptions.get(name, {}) for name in corruptions]
        if not rows or any(column not in row for row in rows):
            return None
        return sum(row[column] for row in rows) / len(rows)
