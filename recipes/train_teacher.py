r"""Train a teacher: supervised, robust to the corruptions that are named.

accelerate launch recipes/train_teacher.py --dataset digits/source \
    --student wrn10_1_cifar --corruption gaussian_noise \
    --num_train_epochs 30 --output_dir outputs/noise_teacher
"""

from hf_transinv.commands.train_teacher import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
