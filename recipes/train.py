r"""Train a student by any method under any augmentation, and publish it.

python recipes/train.py --dataset uoft-cs/cifar100 \
    --label_column fine_label --student wrn16_2_cifar \
    --augment randaugment cutout --num_train_epochs 100
python recipes/train.py ... --method ait --augment randaugment
python recipes/train.py ... --method distillation \
    --teachers USER/NAME --augment transinv
python recipes/train.py ... --method supervised \
    --augment teachaugment
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("train", __doc__)
