"""Transfer learning that carries teachers' invariances over to a student.

Data walks down one street:

data -> models (student, teachers) -> augment -> objectives -> training -> evaluation -> hub

Importing it registers the 32 px architectures (`wrn40_2_cifar`, `resnet32_cifar`, ...) with timm; everything else is
loaded when it is first asked for.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from hf_transinv import models as models
from hf_transinv.errors import InputError

try:
    __version__ = version("hf-transinv")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from hf_transinv.augment.corruptions import CORRUPTIONS, corrupt
    from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
    from hf_transinv.augment.learned_augmentation import LearnedAugmentation
    from hf_transinv.augment.primitives import PrimitiveConfig
    from hf_transinv.augment.saving import load_augmentation
    from hf_transinv.config import TrainConfig
    from hf_transinv.data.sources import open_dataset, open_source
    from hf_transinv.evaluation import evaluate
    from hf_transinv.hub.export import export_classifier
    from hf_transinv.models.classifier import Classifier, open_classifier
    from hf_transinv.models.teacher import EMATeacher, Teacher, build_teachers
    from hf_transinv.objectives.augmix_consistency import AugMixConsistency, AugMixConsistencyConfig
    from hf_transinv.objectives.consistency import ConsistencyConfig, ConsistencyTraining
    from hf_transinv.objectives.distillation import Distillation, DistillationConfig
    from hf_transinv.objectives.hard import Hard, HardConfig
    from hf_transinv.objectives.invariant import InvariantConfig as AITConfig
    from hf_transinv.objectives.invariant import InvariantTraining as AIT  # noqa: N814 (the paper's name)
    from hf_transinv.objectives.l2_sp import L2SP, L2SPConfig
    from hf_transinv.objectives.multi_invariant import MultiInvariantConfig as MultiAITConfig
    from hf_transinv.objectives.multi_invariant import MultiInvariantTraining as MultiAIT
    from hf_transinv.objectives.mutual import MutualLearning
    from hf_transinv.objectives.objective import Objective
    from hf_transinv.objectives.paired import PairedConfig, PairedTraining
    from hf_transinv.objectives.supervised import Supervised
    from hf_transinv.objectives.teachaugment import TeachAugment, TeachAugmentConfig
    from hf_transinv.objectives.transinv import TransInv, TransInvConfig
    from hf_transinv.training.trainer import Trainer

# Public name -> the module it lies in, and its name there.
_PLACES = {
    "AIT": ("objectives.invariant", "InvariantTraining"),
    "AITConfig": ("objectives.invariant", "InvariantConfig"),
    "AugMixConsistency": ("objectives.augmix_consistency", "AugMixConsistency"),
    "AugMixConsistencyConfig": ("objectives.augmix_consistency", "AugMixConsistencyConfig"),
    "AugmentationConfig": ("augment.learned", "AugmentationConfig"),
    "AugmentationPanel": ("augment.learned", "AugmentationPanel"),
    "CORRUPTIONS": ("augment.corruptions", "CORRUPTIONS"),
    "Classifier": ("models.classifier", "Classifier"),
    "ConsistencyConfig": ("objectives.consistency", "ConsistencyConfig"),
    "ConsistencyTraining": ("objectives.consistency", "ConsistencyTraining"),
    "Distillation": ("objectives.distillation", "Distillation"),
    "DistillationConfig": ("objectives.distillation", "DistillationConfig"),
    "EMATeacher": ("models.teacher", "EMATeacher"),
    "Hard": ("objectives.hard", "Hard"),
    "HardConfig": ("objectives.hard", "HardConfig"),
    "L2SP": ("objectives.l2_sp", "L2SP"),
    "L2SPConfig": ("objectives.l2_sp", "L2SPConfig"),
    "LearnedAugmentation": ("augment.learned_augmentation", "LearnedAugmentation"),
    "MultiAIT": ("objectives.multi_invariant", "MultiInvariantTraining"),
    "MultiAITConfig": ("objectives.multi_invariant", "MultiInvariantConfig"),
    "MutualLearning": ("objectives.mutual", "MutualLearning"),
    "PairedConfig": ("objectives.paired", "PairedConfig"),
    "PairedTraining": ("objectives.paired", "PairedTraining"),
    "Objective": ("objectives.objective", "Objective"),
    "PrimitiveConfig": ("augment.primitives", "PrimitiveConfig"),
    "Supervised": ("objectives.supervised", "Supervised"),
    "TeachAugment": ("objectives.teachaugment", "TeachAugment"),
    "TeachAugmentConfig": ("objectives.teachaugment", "TeachAugmentConfig"),
    "Teacher": ("models.teacher", "Teacher"),
    "TrainConfig": ("config", "TrainConfig"),
    "Trainer": ("training.trainer", "Trainer"),
    "TransInv": ("objectives.transinv", "TransInv"),
    "TransInvConfig": ("objectives.transinv", "TransInvConfig"),
    "build_teachers": ("models.teacher", "build_teachers"),
    "corrupt": ("augment.corruptions", "corrupt"),
    "evaluate": ("evaluation", "evaluate"),
    "export_classifier": ("hub.export", "export_classifier"),
    "load_augmentation": ("augment.saving", "load_augmentation"),
    "open_classifier": ("models.classifier", "open_classifier"),
    "open_dataset": ("data.sources", "open_dataset"),
    "open_source": ("data.sources", "open_source"),
}

__all__ = [
    "AIT",
    "CORRUPTIONS",
    "L2SP",
    "AITConfig",
    "AugMixConsistency",
    "AugMixConsistencyConfig",
    "AugmentationConfig",
    "AugmentationPanel",
    "Classifier",
    "ConsistencyConfig",
    "ConsistencyTraining",
    "Distillation",
    "DistillationConfig",
    "EMATeacher",
    "Hard",
    "HardConfig",
    "InputError",
    "L2SPConfig",
    "LearnedAugmentation",
    "MultiAIT",
    "MultiAITConfig",
    "MutualLearning",
    "Objective",
    "PairedConfig",
    "PairedTraining",
    "PrimitiveConfig",
    "Supervised",
    "TeachAugment",
    "TeachAugmentConfig",
    "Teacher",
    "TrainConfig",
    "Trainer",
    "TransInv",
    "TransInvConfig",
    "__version__",
    "build_teachers",
    "corrupt",
    "evaluate",
    "export_classifier",
    "load_augmentation",
    "open_classifier",
    "open_dataset",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _PLACES[name]
    value = getattr(import_module(f"{__name__}.{module}"), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
