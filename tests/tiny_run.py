"""A tiny run, in this process: two networks without BatchNorm, random images, TransInv with two teachers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import timm
import torch
from accelerate import Accelerator

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.config import DataConfig, OutputConfig, TrainConfig
from hf_transinv.data.batches import Feed
from hf_transinv.data.mixing import Mixing
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.run_data import Data
from hf_transinv.data.sources import Source
from hf_transinv.data.transforms import CropFlip
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from hf_transinv.training.validation import open_validation


def random_split(num_images: int = 40, num_classes: int = 3) -> ResidentSplit:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(num_images) % num_classes
    return ResidentSplit(images, labels, [str(label) for label in range(num_classes)])


def tiny_vit(num_classes: int = 3, dropout: float = 0.0) -> Classifier:
    """timm's smallest ViT, for 32 px: no BatchNorm."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    network = timm.create_model("test_vit", num_classes=num_classes, proj_drop_rate=dropout, **sizes)
    statistics = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return Classifier(network, num_classes=num_classes, input_size=(32, 32), **statistics)


def resident_feed(batch_size: int, seed: int, accelerator: Accelerator) -> Feed:
    return ResidentFeed(random_split(), batch_size, seed, accelerator.process_index, accelerator.num_processes)


def tiny_trainer(
    folder: Path,
    *,
    feed: Callable[[int, int, Accelerator], Feed] = resident_feed,
    method: dict[str, Any] | None = None,
    augment: dict[str, Any] | None = None,
    dropout: float = 0.0,
    mixing: Mixing | None = None,
    output: OutputConfig | None = None,
    lengths: tuple[tuple[int, int], ...] = (),
    **train: Any,
) -> Trainer:
    """A Trainer whose fields are TrainConfig's; everything random about it follows from the seed alone.

    With `output` it is measured while it trains, on 24 images of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        **{"max_steps": 8, "batch_size": 8, "learning_rate": 0.05, "logging_steps": 2, "save_steps": 4} | train
    )
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(config.seed)
    student = tiny_vit(dropout=dropout)
    teachers = torch.nn.ModuleList([Teacher(tiny_vit(5), "other"), EMATeacher(student)])
    panel = AugmentationPanel(2, AugmentationConfig(**(augment or {})))
    objective = TransInv(Supervised(student), panel, teachers, TransInvConfig(**{"inner_steps": 2} | (method or {})))
    feeds = {
        player: feed(config.batch_size, config.seed + number, accelerator)
        for number, player in enumerate(("student", "augmentation"))
    }
    validation = open_validation(objective.students, tiny_data(), accelerator, output, 5.0) if output else None
    max_steps = lengths[-1][1] if lengths else config.max_steps
    measured = {"validation": validation, "lengths": lengths}
    setup = TrainerSetup(feeds, CropFlip(), config, max_steps, 5.0, folder, "tiny", mixing=mixing, **measured)
    return Trainer(accelerator, objective, setup)


def tiny_data() -> Data:
    """The split that is trained on, and two of the same kind: one to measure on, one to evaluate on."""
    measured, evaluated, source = random_split(24), random_split(12), cast(Source, None)
    parts = {"validation": measured, "validation_split": "val"}
    return Data(random_split(), evaluated, DataConfig(), "test", [], source, **parts)


def tensors_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of the whole state of all players and averages, by name."""
    return {
        f"{name}.{key}": tensor.detach().clone()
        for name, module in trainer.modules.items()
        for key, tensor in module.state_dict().items()
    }
