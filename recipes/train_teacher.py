r"""Train a teacher: supervised, robust to the corruptions that are named.

python recipes/train_teacher.py --dataset digits/source \
    --student wrn10_1_cifar --corruption gaussian_noise \
    --num_train_epochs 30 --output_dir outputs/noise_teacher
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("train_teacher", __doc__)
