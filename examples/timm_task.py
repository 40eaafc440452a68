"""TransInv as a task of timm, whose training step is `task(input, target)["loss"].backward()` and an optimizer step.

The loader has to leave pixels in [0, 1] (`--mean 0 0 0 --std 1 1 1` in timm's scripts): the student normalises them
itself, and the augmentation works on pixels.

python examples/timm_task.py
    on the embedded digits; half a minute on one core
"""

import timm.optim
import torch
from timm.task import TrainingTask
from torch import Tensor

from hf_transinv import AugmentationPanel, Objective, Supervised, TransInv, build_teachers, open_classifier
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import open_source


class TransInvTask(TrainingTask):
    """A method with a learned augmentation for timm's loop, which knows one optimizer.

    When it is the augmentation's turn, it plays on the batch at hand, with its own optimizer, before the student.

    Args:
        method: whose player "student" timm trains.
        augmentation_optimizer: of its player "augmentation".
        device: of both.
    """

    def __init__(
        self, method: Objective, augmentation_optimizer: torch.optim.Optimizer, device: torch.device | None = None
    ) -> None:
        super().__init__(device=device, verbose=False)
        self.trainable_module = method.players["student"]
        self.method = method.to(self.device)
        self.augmentation_optimizer = augmentation_optimizer
        self._student_played = False

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Images [B, 3, H, W] in [0, 1] and labels [B] -> the student's losses, "loss" among them."""
        self.finish_turn()
        while self.method.player != "student":
            self.method(input, target)["total"].backward()
            self.augmentation_optimizer.step()
            self.method.step()
        losses = self.method(input, target)
        self._student_played = True
        return {"loss": losses.pop("total"), **losses}

    def finish_turn(self) -> None:
        """What follows timm's optimizer step; the next forward pass calls it, and you do after the last one."""
        if self._student_played:
            self.method.step()
            self._student_played = False


def main() -> None:
    """Train on the embedded digits."""
    split = ResidentSplit.load(open_source("digits/target"), image_size=32)
    feed = ResidentFeed(split, batch_size=50, seed=0)
    torch.manual_seed(0)
    student = open_classifier("wrn10_1_cifar", label_names=split.label_names, num_classes=5, pretrained=False)
    panel = AugmentationPanel(1)
    method = TransInv(Supervised(student), panel, build_teachers(["ema"], student))
    task = TransInvTask(method, torch.optim.AdamW(panel.parameter_groups()))
    optimizer = timm.optim.create_optimizer_v2(task.trainable_module, opt="sgd", lr=0.05, momentum=0.9)
    for step in range(100):
        images, labels = feed.next_batch()
        result = task(images / 255, labels)
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(step, result["loss"].item())
    task.finish_turn()


if __name__ == "__main__":
    main()
