"""Which method trains a student, under which augmentation: the one place where names become objectives.

    method    what the student minimises: supervised, augmix, ait, multi_ait, mutual, distillation, hard
    augment   on which images: fixed policies one after another, or one that is learned (transinv, teachaugment),
              perhaps with fixed ones behind it

Any method goes under any augmentation where that makes sense; what does not compose is refused with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from hf_transinv.augment.hard_augmenters import AugmenterConfig, build_augmenter
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.policies import POLICIES, CorruptionConfig, PolicyConfig, build_policies
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.augment.teach_augmentation import TeachAugmentation
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.publish import publish
from hf_transinv.experiment.session import Session, new_student
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.teacher import EMATeacher, build_teachers, place_teachers
from hf_transinv.objectives.augmix_consistency import AugMixConsistency, AugMixConsistencyConfig
from hf_transinv.objectives.base import Objective
from hf_transinv.objectives.distillation import Distillation, DistillationConfig, shared_columns
from hf_transinv.objectives.hard import Hard, HardConfig
from hf_transinv.objectives.invariant import InvariantConfig, InvariantTraining
from hf_transinv.objectives.multi_invariant import MultiInvariantConfig, MultiInvariantTraining
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.teachaugment import TeachAugment, TeachAugmentConfig
from hf_transinv.objectives.transinv import TransInv, TransInvConfig

TITLES = {
    "transinv": "TransInv",
    "teachaugment": "TeachAugment",
    "augmix": "AugMix",
    "ait": "AIT",
    "multi_ait": "multi-AIT",
    "mutual": "mutual learning",
    "distillation": "distillation",
    "hard": "HARD (our reading)",
    "randaugment": "RandAugment",
    "autoaugment": "AutoAugment",
    "trivialaugment": "TrivialAugment",
    "cutout": "Cutout",
    "strong": "strong augmentation",
    "fixed_aug": "FixedAug",
    "corruption": "corruptions",
    "pad_crop": "crop",
    "grayscale": "grayscale",
    "color_jitter": "colour jitter",
}
METHODS = ("supervised", "augmix", "ait", "multi_ait", "mutual", "distillation", "hard")
LEARNED = ("transinv", "teachaugment")
_WITH_PEERS = ("multi_ait", "mutual")


@dataclass
class MethodConfig:
    """Which method trains the student, under which augmentation.

    Attributes:
        method: supervised, augmix (consistency), ait, multi_ait, mutual (deep mutual learning), distillation or hard
            (our reading of HARD, with an augmenter of its own).
        augment: fixed policies, applied one after another, behind at most one that is learned (transinv,
            teachaugment).
        second_augment: ait: the policies of the second variant; default: as augment.
        peers: multi_ait, mutual: the networks beside the student, by timm's names; default: one like the student.
        distill_from: distillation: which of the teachers are distilled from; default: all.
    """

    method: str = "supervised"
    augment: tuple[str, ...] = ()
    second_augment: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    distill_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r} is not one of {', '.join(METHODS)}")
        for name in (*self.augment, *self.second_augment):
            if name not in POLICIES and name not in LEARNED:
                raise InputError(f"augment {name!r} is not one of {', '.join((*POLICIES, *LEARNED))}")
        learned = [name for name in self.augment if name in LEARNED]
        if len(learned) > 1 or any(name in LEARNED for name in self.second_augment):
            raise InputError(f"augment {' '.join(self.augment)}: one learned augmentation at most, for both variants")
        if learned and self.augment[0] != learned[0]:
            raise InputError(f"augment {' '.join(self.augment)}: the learned one comes first, fixed ones follow it")
        self._refuse_what_does_not_compose(learned)

    def _refuse_what_does_not_compose(self, learned: list[str]) -> None:
        if self.method == "augmix" and learned:
            raise InputError(
                f"method augmix compares an image with augmented copies of it, and {learned[0]} would deform the "
                "image itself: take method supervised, ait or distillation under it"
            )
        if self.method == "hard" and self.augment:
            raise InputError("method hard learns its own augmentation (hard_augmenter): leave out augment")
        for name, methods in (
            ("second_augment", ("ait",)),
            ("peers", _WITH_PEERS),
            ("distill_from", ("distillation",)),
        ):
            if getattr(self, name) and self.method not in methods:
                raise InputError(f"{name} is for method {' or '.join(methods)}, not for {self.method}")

    @property
    def title(self) -> str:
        """As the row of a table: "distillation + RandAugment"; empty for plain supervised training."""
        method = () if self.method == "supervised" else (self.method,)
        return " + ".join(dict.fromkeys(TITLES[name] for name in (*method, *self.augment)))

    @property
    def learned(self) -> str | None:
        """The learned augmentation, if there is one."""
        return next((name for name in self.augment if name in LEARNED), None)

    @property
    def fixed(self) -> tuple[str, ...]:
        """The fixed policies; augmix has its own where none is named."""
        named = tuple(name for name in self.augment if name not in LEARNED)
        return named or (("augmix",) if self.method == "augmix" else ())


GROUPS: tuple[type, ...] = (
    MethodConfig,
    PolicyConfig,
    CorruptionConfig,
    AugMixConsistencyConfig,
    InvariantConfig,
    MultiInvariantConfig,
    DistillationConfig,
    HardConfig,
    AugmenterConfig,
    TransInvConfig,
    AugmentationConfig,
    PrimitiveConfig,
    TeachAugmentConfig,
)
"""Everything that a method can be told, for `command_line.parse`."""


class MethodBuilder:
    """Builds the objective of a run, with new networks each time.

    Args:
        session: data, device and steps.
        names: the student and its teachers.
        train: the loop.
        options: an instance of each of `GROUPS`.
    """

    def __init__(self, session: Session, names: StudentConfig, train: TrainConfig, *options: Any) -> None:
        self.session, self.names, self.train = session, names, train
        self.options: Mapping[type, Any] = {type(one): one for one in options}
        self.method: MethodConfig = self.options[MethodConfig]
        self.policy_config = replace(
            self.options[PolicyConfig],
            corruption_policy=self.options[CorruptionConfig],
            primitive=self.options[PrimitiveConfig],
        )
        self.policies = build_policies(self.method.fixed, self.policy_config)

    def build(self, seed: int) -> Objective:
        """The objective, its student as every method with the same seed has it.

        Raises:
            InputError: a teacher is missing or does not fit, a network cannot be opened.
        """
        student = new_student(self.names, self.session.data.label_names, seed)
        if self.method.method == "hard":
            return self._hard(student)
        task = self._task(student)
        if self.method.learned == "transinv":
            return self._transinv(task, student)
        return self._teachaugment(task, student) if self.method.learned else task

    def _task(self, student: Classifier) -> Objective:
        policies, smoothing = self.policies, self.train.label_smoothing
        match self.method.method:
            case "augmix":
                return AugMixConsistency(student, self.options[AugMixConsistencyConfig], policies, smoothing)
            case "ait":
                named = self.method.second_augment
                second = build_policies(named, self.policy_config) if named else None
                return InvariantTraining(student, self.options[InvariantConfig], policies, second, smoothing)
            case "multi_ait":
                networks = [student, *self._peers(student)]
                return MultiInvariantTraining(networks, self.options[MultiInvariantConfig], policies, smoothing)
            case "mutual":
                return MutualLearning([student, *self._peers(student)], policies, smoothing)
            case "distillation":
                teachers = self._teachers(student, self.method.distill_from or self.names.teachers)
                return Distillation(student, teachers, self.options[DistillationConfig], policies, smoothing)
        return Supervised(student, smoothing, policies)

    def _peers(self, student: Classifier) -> list[Classifier]:
        names = self.session.data.label_names
        architectures = self.method.peers or (self.names.student or student.network.pretrained_cfg["architecture"],)
        return [
            open_classifier(name, num_classes=len(names), label_names=names, pretrained=False)
            for name in architectures
        ]

    def _teachers(self, student: Classifier, names: Sequence[str]) -> nn.ModuleList:
        unknown = [name for name in names if name not in self.names.teachers]
        if unknown or not names:
            raise InputError(
                f"distill_from {', '.join(unknown)}: expected some of the teachers {', '.join(self.names.teachers)}"
                if unknown
                else f"no teachers: {self.method.title} needs at least one name, --teachers ID"
            )
        teachers = build_teachers(names, student, self.names.ema_decay)
        return place_teachers(teachers, self.session.accelerator.device, self.names.teacher_device)

    def _hard(self, student: Classifier) -> Hard:
        teachers = self._teachers(student, self.names.teachers)
        if len(teachers) > 1:
            raise InputError(f"method hard has one teacher, given {len(teachers)}: {', '.join(self.names.teachers)}")
        augmenter = build_augmenter(self.options[AugmenterConfig], self._image_size())
        return Hard(student, augmenter, teachers[0], self.options[HardConfig], shared_columns(teachers[0], student))

    def _transinv(self, task: Objective, student: Classifier) -> TransInv:
        teachers = self._teachers(student, self.names.teachers)
        panel = replace(self.options[AugmentationConfig], primitive=self.options[PrimitiveConfig])
        return TransInv(task, AugmentationPanel(len(teachers), panel), teachers, self.options[TransInvConfig])

    def _teachaugment(self, task: Objective, student: Classifier) -> TeachAugment:
        config, (steps, per_epoch) = self.options[TeachAugmentConfig], self.session.steps()
        augmentation = TeachAugmentation(
            student.num_classes, student.mean.flatten().tolist(), student.std.flatten().tolist()
        )
        teacher = EMATeacher(student, self.names.ema_decay).to(self.session.accelerator.device)
        return TeachAugment(task, augmentation, teacher, config, config.copy_steps(per_epoch), steps)

    def _image_size(self) -> tuple[int, int]:
        return tuple(self.session.data.evaluation.images.shape[-2:])


BASELINES = {"plain": ("fine-tuning", "none", False), "crop_flip": ("crop + flip", "pad", True)}
"""The fair rows: title, crop, flip."""


def train(recipe: str, description: str, default_config: Path | None = None, **defaults: Any) -> None:
    """A recipe from its command line to its published student.

    Args:
        recipe: its name, for folders and records.
        description: for --help.
        default_config: YAML that is read when neither --config nor --dataset is given.
        defaults: of this recipe, instead of the dataclasses' own.
    """
    groups = parse(
        [DataConfig, StudentConfig, TrainConfig, *GROUPS, OutputConfig],
        default_config=default_config,
        description=description,
        defaults=defaults,
    )
    data, names, loop, *options, output = groups
    method, corruption = (
        next(one for one in options if type(one) is kind) for kind in (MethodConfig, CorruptionConfig)
    )
    if corruption.corruption and "corruption" not in (*method.augment, *method.second_augment):
        raise InputError("corruption names what the policy corruption does: add corruption to augment")
    session = Session(recipe, data, loop, output, as_dict(*groups))
    builder = MethodBuilder(session, names, loop, *options)
    objective = builder.build(loop.seed)
    plain = "crop + flip" if data.flip and data.crop != "none" else "supervised"
    title = method.title or plain
    session.fit(title, objective, data.crop, data.flip)
    for baseline in output.baselines:
        name, crop, flip = BASELINES[baseline]
        if name != title:
            rival = new_student(names, session.data.label_names, loop.seed)
            session.fit(name, Supervised(rival, loop.label_smoothing), crop, flip)
    print(publish(session, objective))
