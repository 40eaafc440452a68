"""TransInv in a plain PyTorch loop: no Trainer, no accelerate, no recipe.

python examples/plain_loop.py
    on the embedded digits; half a minute on one core
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from hf_transinv import AugmentationPanel, Classifier, Supervised, TransInv, build_teachers, open_classifier
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import open_source


def train(student: Classifier, teachers: torch.nn.ModuleList, batches: Iterable[tuple[Tensor, Tensor]]) -> list[dict]:
    """Trains the student; returns the losses of every turn.

    Args:
        student: to be trained.
        teachers: of `build_teachers`.
        batches: float images [B, 3, H, W] in [0, 1], cropped and flipped as you like, and labels [B].
    """
    panel = AugmentationPanel(len(teachers))
    method = TransInv(Supervised(student), panel, teachers)
    optimizers = {
        "student": torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True),
        "augmentation": torch.optim.AdamW(panel.parameter_groups()),
    }
    seen = []
    for images, labels in batches:
        player = method.player  # five times the student, then once the augmentation
        losses = method(images, labels)
        losses["total"].backward()
        optimizers[player].step()
        method.step()  # averages and multipliers follow, the turn goes on
        seen.append({"player": player} | {name: value.item() for name, value in losses.items()})
    return seen


def main() -> None:
    """Train on the embedded digits."""
    split = ResidentSplit.load(open_source("digits/target"), image_size=32)
    feed = ResidentFeed(split, batch_size=50, seed=0)
    torch.manual_seed(0)
    student = open_classifier("wrn10_1_cifar", label_names=split.label_names, num_classes=5, pretrained=False)
    teachers = build_teachers(["ema"], student)
    batches = ((images / 255, labels) for images, labels in (feed.next_batch() for _ in range(120)))
    for turn, losses in enumerate(train(student, teachers, batches)):
        if turn % 10 == 0:
            print(turn, losses)


if __name__ == "__main__":
    main()
