"""The objectives in the trainer, with tiny networks without BatchNorm; of TransInv one with a relative tolerance."""

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from hf_transinv.augment.learned import AugmentationPanel
from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.augment.policies.jitter import ColorJitter
from hf_transinv.config import MixingConfig, TrainConfig
from hf_transinv.data.mixing import Mixing
from hf_transinv.data.resident import ResidentFeed
from hf_transinv.data.transforms import CropFlip
from hf_transinv.models import EMATeacher, Teacher
from hf_transinv.objectives.augmix_consistency import AugMixConsistency, AugMixConsistencyConfig
from hf_transinv.objectives.consistency import ConsistencyConfig, ConsistencyTraining
from hf_transinv.objectives.distillation import Distillation, DistillationConfig
from hf_transinv.objectives.invariant import InvariantConfig, InvariantTraining
from hf_transinv.objectives.l2_sp import L2SP, L2SPConfig
from hf_transinv.objectives.multi_invariant import MultiInvariantConfig, MultiInvariantTraining
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.paired import PairedConfig, PairedTraining
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.tiny_run import random_split, resident_feed, tiny_vit

METHODS = (
    "augmix",
    "consistency",
    "paired",
    "ait",
    "ait_features",
    "multi_ait",
    "mutual",
    "distillation",
    "l2_sp",
    "l2_sp_probed",
    "transinv_relative",
    "ait_mixed",
    "mutual_mixed",
)

MIXING = MixingConfig(mixup=0.4, cutmix=1.0, random_erasing=0.5)
"""Of the methods that end in _mixed, with weights of classes and a balanced feed; _probed trains the head first."""


def objective_of(method: str) -> Objective:
    """New networks, the same in every process."""
    torch.manual_seed(0)
    student, other = tiny_vit(), tiny_vit()
    policies = [FixedAug(), ColorJitter()]
    if method == "augmix":
        return AugMixConsistency(student, AugMixConsistencyConfig(), policies)
    if method == "consistency":
        options = ConsistencyConfig("ema", consistency_warmup=0.5)
        return ConsistencyTraining(student, options, policies, max_steps=4)
    if method == "paired":
        return PairedTraining(student, PairedConfig(0.5), policies)
    if method == "ait":
        return InvariantTraining(student, InvariantConfig(), [policies[0]], [policies[1]])
    if method == "ait_features":
        return InvariantTraining(student, InvariantConfig(ait_metric="both", ait_layer="features"))
    if method == "multi_ait":
        return MultiInvariantTraining([student, other], MultiInvariantConfig(), policies)
    if method == "l2_sp":
        return L2SP(student, L2SPConfig(), policies)
    if method == "mutual":
        return MutualLearning([student, other, tiny_vit()], policies)
    teachers = nn.ModuleList([Teacher(other, "other"), EMATeacher(student)])
    if method == "transinv_relative":
        options = TransInvConfig(inner_steps=1, tolerance_relative_to="crop")
        return TransInv(Supervised(student), AugmentationPanel(2), teachers, options)
    return Distillation(student, teachers, DistillationConfig(distill_top_k=2), policies)


def trainer_of(method: str, folder: Path, **train: int) -> Trainer:
    """A Trainer of four steps; everything random follows from the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {"max_steps": 4, "batch_size": 8, "learning_rate": 0.05, "logging_steps": 1, "save_steps": 2}
    if method.endswith("_probed"):
        options["linear_probe_share"] = 0.75
    config = TrainConfig(**options | train)
    accelerator = Accelerator(cpu=True)
    feeds, mixing = {"student": resident_feed(config.batch_size, config.seed, accelerator)}, None
    if method.endswith("_mixed"):
        place = accelerator.process_index, accelerator.num_processes
        feeds = {"student": ResidentFeed(random_split(), config.batch_size, config.seed, *place, balanced=True)}
        mixing = Mixing(MIXING, 3, torch.tensor([0.5, 1.0, 2.0]))
    objective = objective_of(method.removesuffix("_mixed").removesuffix("_probed"))
    if ("augmentation",) in objective.turns:
        feeds["augmentation"] = resident_feed(config.batch_size, config.seed + 1, accelerator)
    setup = TrainerSetup(feeds, CropFlip(), config, 4, 5.0, folder, method, mixing=mixing)
    return Trainer(accelerator, objective, setup)
