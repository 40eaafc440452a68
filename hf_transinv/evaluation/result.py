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
