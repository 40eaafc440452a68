"""What the benchmark measures."""

import math
from dataclasses import dataclass
from pathlib import Path

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.config import TrainConfig
from hf_transinv.config.checks import choice, did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.objectives.invariant import InvariantTraining
from hf_transinv.objectives.registry import LEARNED, METHODS

SECTIONS = ("turns", "launches", "augmentation", "corruptions", "feeds")
COMPARED = (*LEARNED, *(method for method in METHODS if method != "supervised"))
"""What is measured beside plain training, by the names that the registry knows."""
MAX_STEPS = 1_000_000  # so many that the learning rate stays at the foot of its warm-up


@dataclass
class BenchmarkConfig:
    """What is measured.

    Attributes:
        sections: some of turns, launches, augmentation, corruptions and feeds; default: all.
        student: timm's name of the student; teachers and peers are networks of the same architecture.
        num_classes: classes of all networks.
        methods: turns, launches: beside plain training; default: every method and every learned augmentation.
        teacher_counts: turns, launches: numbers of teachers of TransInv, one run each.
        inner_steps: turns: student turns to one augmentation turn (n_inner).
        batch_size: images per turn, and images per call.
        image_size: their side in pixels.
        channels_last: memory layout of the networks.
        compile: students and teachers by torch.compile.
        rounds: how often everything is measured, each time beside everything else; corruptions have one round, and
            launches are counted.
        seconds: time for each figure in each round, at least.
        corruptions: which; default: all there are.
        threads: corruptions: a column for each number of threads; all else has the threads that torch has.
        feed_images: feeds: PNG images in the data set.
        photographs: feeds: JPEG photographs for the part with crops of 224 px; 0: without that part.
        output: file for the numbers as JSON; default: none.
        seed: of the networks, of the images and of what is drawn.
    """

    sections: tuple[str, ...] = choice(SECTIONS, SECTIONS, is_closed=False)
    student: str = "wrn16_2_cifar"
    num_classes: int = 100
    methods: tuple[str, ...] = choice(COMPARED, COMPARED, is_closed=False)
    teacher_counts: tuple[int, ...] = (1, 3, 5)
    inner_steps: int = 5
    batch_size: int = 128
    image_size: int = 32
    channels_last: bool = True
    compile: bool = False
    rounds: int = 5
    seconds: float = 0.3
    corruptions: tuple[str, ...] = choice(CORRUPTIONS, CORRUPTIONS, is_closed=False)
    threads: tuple[int, ...] = (1, 2)
    feed_images: int = 10_000
    photographs: int = 256
    output: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("sections", SECTIONS), ("methods", COMPARED)):
            unknown = [given for given in getattr(self, name) if given not in known]
            if unknown:
                near = did_you_mean(unknown[0], known)
                raise InputError(f"{name} {', '.join(unknown)}: expected some of {', '.join(known)}{near}")
        for name in self.corruptions:
            check_corruption(name)
        for name in ("sections", "corruptions", "threads", "teacher_counts"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise InputError(f"{name} {list(given)}: expected at least one, each once")
        if min(self.batch_size, self.inner_steps, self.rounds, *self.threads, *self.teacher_counts) < 1:
            raise InputError("batch_size, inner_steps, rounds, threads and teacher_counts must be at least 1")
        if self.image_size < 8 or self.num_classes < 2 or self.seed < 0 or not 0 < self.seconds < math.inf:
            raise InputError(
                "image_size must be at least 8, num_classes at least 2, seed not negative, seconds positive"
            )
        variants = InvariantTraining.variants_a_network
        if {"turns", "launches"} & set(self.sections) and "ait" in self.methods and self.batch_size % variants:
            raise InputError(
                f"ait shows {variants} variants of each image: batch_size {self.batch_size} must be a multiple of "
                f"{variants}, or leave ait out of methods"
            )
        if self.photographs < 0:
            raise InputError(f"photographs {self.photographs} must not be negative; 0: none")
        if "feeds" in self.sections and self.feed_images < self.batch_size:
            raise InputError(f"feed_images {self.feed_images} must be at least batch_size, {self.batch_size}")
        if self.output and (Path(self.output).is_dir() or not Path(self.output).absolute().parent.is_dir()):
            raise InputError(f"output {self.output!r}: expected the name of a file in a folder that exists")

    @property
    def train(self) -> TrainConfig:
        """The loop, as every trainer of the benchmark has it."""
        return TrainConfig(
            max_steps=MAX_STEPS,
            batch_size=self.batch_size,
            seed=self.seed,
            channels_last=self.channels_last,
            compile=self.compile,
        )
