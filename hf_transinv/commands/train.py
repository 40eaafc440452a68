r"""Train a student by any method under any augmentation, and publish it.

transinv train --dataset uoft-cs/cifar100 --label_column fine_label \
    --student wrn16_2_cifar --augment randaugment cutout \
    --num_train_epochs 100
transinv train ... --method ait --augment randaugment
transinv train ... --method distillation --teachers USER/NAME \
    --augment transinv
transinv train ... --method supervised --augment teachaugment
"""

from hf_transinv.experiment.entry import train


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    train("train", description)
