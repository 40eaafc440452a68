"""TransInv inside `transformers.Trainer`: a subclass with `compute_loss`; everything else stays the Trainer's own.

python examples/transformers_trainer.py
    on the embedded digits; half a minute on one core
"""

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_transinv import AugmentationPanel, Objective, Supervised, TransInv, build_teachers, open_classifier
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source


class _FollowSteps(TrainerCallback):
    """What follows each step of the student's optimizer."""

    def __init__(self, method: Objective) -> None:
        self.method = method

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        self.method.step()


class TransInvTrainer(Trainer):
    """Trains the player "student" of a method; its dataset gives "pixel_values" in [0, 1] and "labels".

    When it is the augmentation's turn, it plays on the batch at hand, with its own optimizer, before the student.

    Args:
        method: a method with a learned augmentation.
        augmentation_optimizer: of its player "augmentation".
        kwargs: of `transformers.Trainer`, without the model.
    """

    def __init__(self, method: Objective, augmentation_optimizer: torch.optim.Optimizer, **kwargs: Any) -> None:
        super().__init__(model=method.players["student"], **kwargs)
        self.args.remove_unused_columns = False  # judged by the model's forward, which takes images alone
        self.method, self.augmentation_optimizer = method.to(self.args.device), augmentation_optimizer
        self.add_callback(_FollowSteps(method))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        images, labels = inputs["pixel_values"], inputs["labels"]
        while self.method.player != "student":
            self.method(images, labels)["total"].backward()
            self.augmentation_optimizer.step()
            self.method.step()
        losses = self.method(images, labels)
        return (losses["total"], losses) if return_outputs else losses["total"]


def main() -> None:
    """Train on the embedded digits."""
    split = ResidentSplit.load(open_source("digits/target"), image_size=32)
    pairs = zip(split.images, split.labels, strict=True)
    rows = [{"pixel_values": image / 255, "labels": label} for image, label in pairs]
    torch.manual_seed(0)
    student = open_classifier("wrn10_1_cifar", label_names=split.label_names, num_classes=5, pretrained=False)
    panel = AugmentationPanel(1)
    method = TransInv(Supervised(student), panel, build_teachers(["ema"], student))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=100,
            per_device_train_batch_size=50,
            learning_rate=1e-2,
            logging_steps=10,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
        )
        optimizer = torch.optim.AdamW(panel.parameter_groups())
        TransInvTrainer(method, optimizer, args=arguments, train_dataset=rows).train()


if __name__ == "__main__":
    main()
