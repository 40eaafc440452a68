"""Which method trains a student, under which augmentation, and what a run builds it from.

    method    what the student minimises: one of `objectives.registry.METHODS`
    augment   on which images: fixed policies one after another, or one that is learned (`LEARNED`), perhaps with
              fixed ones behind it

Any method goes under any augmentation where that makes sense; what does not compose is refused with the reason.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from accelerate.utils import set_seed

from hf_transinv.augment.policies import POLICIES, CorruptionConfig, PolicyConfig, build_policies
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.config import DataConfig, MixingConfig, StudentConfig, TrainConfig
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.data.run_data import ordinary
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.experiment.session import Session
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.teacher import Teacher, build_teachers, place_teachers
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Options
from hf_transinv.objectives.registry import LEARNED, METHODS
from hf_transinv.training.averaging import keep_average
from hf_transinv.training.interpolation import keep_start


@dataclass
class MethodConfig:
    """Which method trains the student, under which augmentation.

    Attributes:
        method: what the student minimises; mutual is deep mutual learning, hard our reading of HARD, which has an
            augmenter of its own.
        augment: fixed policies, applied one after another, behind at most one that is learned (transinv,
            teachaugment).
        second_augment: ait: the policies of the second variant; default: as augment.
        peers: multi_ait, mutual: the networks beside the student, by timm's names; default: one like the student.
        distill_from: distillation: which of the teachers are distilled from; default: all.
    """

    method: str = choice("supervised", METHODS)
    augment: tuple[str, ...] = choice((), (*POLICIES, *LEARNED))
    second_augment: tuple[str, ...] = choice((), (*POLICIES, *LEARNED))
    peers: tuple[str, ...] = ()
    distill_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        learned = [name for name in self.augment if name in LEARNED]
        for field in ("augment", "second_augment"):
            given = getattr(self, field)
            if sum(name in LEARNED for name in given) > (1 if field == "augment" else 0):
                at_most = "one learned augmentation at most, for both variants: give it to augment"
                raise InputError(f"{field} {' '.join(given)}: {at_most}")
        if learned and self.augment[0] != learned[0]:
            raise InputError(f"augment {' '.join(self.augment)}: the learned one comes first, fixed ones follow it")
        METHODS[self.method].check_augment(self.augment, self.learned)
        for option in dict.fromkeys(itertools.chain(*(kind.own_options for kind in METHODS.values()))):
            takers = [name for name, kind in METHODS.items() if option in kind.own_options]
            if getattr(self, option) and self.method not in takers:
                raise InputError(f"{option} is for method {' or '.join(takers)}, not for {self.method}")

    @property
    def title(self) -> str:
        """As the row of a table: "distillation + RandAugment"; empty for plain supervised training."""
        method = () if self.method == "supervised" else (METHODS[self.method].title,)
        augment = ((LEARNED[name] if name in LEARNED else POLICIES[name]).title for name in self.augment)
        return " + ".join(dict.fromkeys((*method, *augment)))

    @property
    def learned(self) -> str | None:
        """The learned augmentation, if there is one."""
        return next((name for name in self.augment if name in LEARNED), None)

    @property
    def fixed(self) -> tuple[str, ...]:
        """The fixed policies; some methods have their own where none is named."""
        named = tuple(name for name in self.augment if name not in LEARNED)
        return named or METHODS[self.method].default_policies


GROUPS: tuple[type, ...] = (
    MethodConfig,
    PolicyConfig,
    CorruptionConfig,
    MixingConfig,
    *itertools.chain(*(kind.configs for kind in (*METHODS.values(), *LEARNED.values()))),
)
"""Everything that a method can be told, for `arguments.parse`."""


def checked_mixing(data: DataConfig, options: Sequence[Any]) -> tuple[MixingConfig, int]:
    """The regularisers of a run.

    Args:
        data: of the run.
        options: an instance of each of `GROUPS`.

    Returns:
        Them, and of what the batch size of a process's micro-batch has to be a multiple.

    Raises:
        InputError: the method or the data do not compose with them.
    """
    by_kind = {type(one): one for one in options}
    method, mixing = by_kind[MethodConfig], by_kind[MixingConfig]
    check_sampler(data, mixing)
    task = METHODS[method.method]
    task.check_mixing(mixing, by_kind)
    if method.learned:
        LEARNED[method.learned].check_mixing(mixing, by_kind)
    return mixing, (2 * task.variants_a_network if mixing.mixes else 1)


def check_sampler(data: DataConfig, mixing: MixingConfig) -> None:
    """Raises InputError where classes are to be shown equally often and come as a stream."""
    if mixing.sampler and data.streaming:
        raise InputError(
            f"sampler {mixing.sampler} chooses among all training images, and a stream never has all of them: leave "
            "out streaming or sampler (class_weights balanced is for streams that know their labels, such as parquet)"
        )


def new_student(config: StudentConfig, label_names: list[str], seed: int) -> Classifier:
    """The student as it is before training: the same for every method with the same seed."""
    set_seed(seed)
    start, name = config.student_init.partition(":")[0], config.network_name
    options = {"num_classes": len(label_names), **config.network_options}
    if start == "scratch":
        return open_classifier(name, label_names=label_names, pretrained=False, **options)
    student = open_classifier(name, **options)
    if start == "teacher" or student.label_names != label_names:
        student.relabel(label_names)
    return student


class MethodBuilder:
    """Builds the objective of a run, with new networks each time; hands out its `objectives.parts.Parts`.

    Args:
        session: data, device and steps.
        names: the student and its teachers.
        train: the loop.
        options: an instance of each of `GROUPS`.
    """

    def __init__(self, session: Session, names: StudentConfig, train: TrainConfig, options: Sequence[Any]) -> None:
        self.session, self.names = session, names
        self._options = {type(one): one for one in options}
        self.method = self.options(MethodConfig)
        fixed = replace(
            self.options(PolicyConfig),
            corruption_policy=self.options(CorruptionConfig),
            primitive=self.options(PrimitiveConfig),
        )
        self.policies = build_policies(self.method.fixed, fixed)
        second = self.method.second_augment
        self.second_policies = build_policies(second, fixed) if second else None
        self.label_smoothing, self.ema_decay = train.label_smoothing, names.ema_decay
        self._keeps_average, self._keeps_start = train.ema != "none", train.interpolate is not None
        self.device = session.accelerator.device

    def build(self, seed: int) -> Objective:
        """The objective, its student as every method with the same seed has it.

        Raises:
            InputError: a teacher is missing or does not fit, a network cannot be opened.
        """
        student = new_student(self.names, self.session.label_names, seed)
        task = METHODS[self.method.method].build(student, self)
        learned = self.method.learned
        objective = LEARNED[learned].build_over(task, student, self) if learned else task
        objective = keep_start(objective) if self._keeps_start else objective
        return keep_average(objective, self.ema_decay) if self._keeps_average else objective

    def options(self, kind: type[Options]) -> Options:
        """The options of a kind, as they were given."""
        return self._options[kind]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images; where they keep their own, they are decoded first."""
        side = self.session.config.image_size
        shape = self.session.data.evaluation.images.shape[-2:] if side is None else (side, side)
        return cast(tuple[int, int], tuple(shape))

    @property
    def ordinary(self) -> CropFlip:
        """Crop and mirror of the training images."""
        return ordinary(self.session.config)

    @property
    def max_steps(self) -> int:
        """Student steps in all."""
        return self.session.steps()[0]

    @property
    def steps_per_epoch(self) -> float:
        """Student steps in a pass over the data."""
        return self.session.steps()[1]

    def teachers(self, student: Classifier) -> Sequence[Teacher]:
        """All teachers, frozen, on their devices.

        Raises:
            InputError: none is named, or one cannot be opened.
        """
        return self._teachers(student, self.names.teachers)

    def distilled(self, student: Classifier) -> Sequence[Teacher]:
        """The teachers that are distilled from; raises as `teachers` does."""
        return self._teachers(student, self.method.distill_from or self.names.teachers)

    def _teachers(self, student: Classifier, names: Sequence[str]) -> Sequence[Teacher]:
        unknown = [name for name in names if name not in self.names.teachers]
        if unknown or not names:
            raise InputError(
                f"distill_from {', '.join(unknown)}: expected some of the teachers {', '.join(self.names.teachers)}"
                if unknown
                else f"no teachers: {self.method.title} needs at least one name, --teachers ID"
            )
        teachers = build_teachers(names, student, self.names.ema_decay, self.names.teacher_sizes)
        place_teachers(teachers, self.device, self.names.teacher_device)
        return cast(Sequence[Teacher], tuple(teachers))

    def peers(self, student: Classifier) -> list[Classifier]:
        """The networks beside the student, untrained."""
        names = self.session.label_names
        architectures = self.method.peers or (self.names.network_name,)
        options = self.names.shared_options if self.method.peers else self.names.network_options
        return [
            open_classifier(name, num_classes=len(names), label_names=names, pretrained=False, **options)
            for name in architectures
        ]
