"""What run.json says of one row, with types: its results, what was learned, and how it was measured on the way."""

from dataclasses import dataclass, field

from hf_transinv.evaluation.result import Result

METRICS = {"top1": "top-1", "loss": "the loss", "corrupted": "top-1 under corruption"}
"""What a student can be chosen by: name in the record -> in words."""


@dataclass(frozen=True)
class Learned:
    """Probabilities at the end of the training, one entry per teacher; empty where none were learned.

    Attributes:
        p: of each primitive.
        q: that an image is deformed at all.
        r: that the teacher's augmentation is chosen.
    """

    p: tuple[tuple[float, ...], ...] = ()
    q: tuple[float, ...] = ()
    r: tuple[float, ...] = ()


@dataclass(frozen=True)
class MeasuredWhileTraining:
    """The measurements on the validation part (`training.validation`), and what followed from them.

    Attributes:
        split: the validation part.
        figures: of the last measurement: "top1" and "corrupted" in percent, "loss" in nats.
        corruptions: that "corrupted" is the mean over.
        severity: theirs.
        metric: what the best student was best in; None: none was chosen.
        step: of the best student.
        value: its figure.
        is_loaded: whether it is the one that was evaluated and exported, and not the last.
        patience: measurements without a better student after which the training ends.
        stopped_early: whether it did.
        is_evaluation: whether the final figures are of the same images.
    """

    split: str
    figures: dict[str, float] = field(default_factory=dict)
    corruptions: tuple[str, ...] = ()
    severity: int | None = None
    metric: str | None = None
    step: int | None = None
    value: float | None = None
    is_loaded: bool = False
    patience: int | None = None
    stopped_early: bool = False
    is_evaluation: bool = False


@dataclass(frozen=True)
class Extension:
    """A run that was given more steps.

    Attributes:
        at_step: where.
        to_steps: in all.
    """

    at_step: int
    to_steps: int


@dataclass(frozen=True)
class Row:
    """One trained network.

    Attributes:
        results: of its evaluation.
        steps: of its optimizer.
        images_seen: training images it was shown, repeats counted.
        images_shown: versions of training images that it answered to in its own turns; None: not recorded.
        images_distinct: the images of its batches, of which they are versions; None: not recorded.
        train_seconds: of training alone.
        images_skipped: training images that could not be decoded.
        learned: of its augmentation.
        warnings: what the training noticed.
        kin: corruptions that its augmentations imitate, each with the reason; None: not recorded.
        validation: how it was measured while it trained; None: it was not.
    """

    results: Result
    steps: int | None = None
    images_seen: int | None = None
    images_shown: int | None = None
    images_distinct: int | None = None
    train_seconds: float | None = None
    images_skipped: int = 0
    learned: Learned = field(default_factory=Learned)
    warnings: tuple[str, ...] = ()
    kin: dict[str, str] | None = None
    validation: MeasuredWhileTraining | None = None
