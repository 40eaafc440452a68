r"""Train a student by any method under any augmentation, and publish it.

accelerate launch recipes/train.py --dataset uoft-cs/cifar100 \
    --label_column fine_label --student wrn16_2_cifar \
    --augment randaugment cutout --num_train_epochs 100
accelerate launch recipes/train.py ... --method ait --augment randaugment
accelerate launch recipes/train.py ... --method distillation \
    --teachers USER/NAME --augment transinv
accelerate launch recipes/train.py ... --method supervised \
    --augment teachaugment
"""

from hf_transinv.commands.train import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
