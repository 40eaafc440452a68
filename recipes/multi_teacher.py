r"""Train a student under augmentations that are learned against its teachers (TransInv), and publish it.

accelerate launch recipes/multi_teacher.py
    the embedded default: digits, two small teachers and the student's own
    average; two minutes on two cores

accelerate launch --mixed_precision bf16 recipes/multi_teacher.py --config \
    recipes/configs/cifar100_three_teachers.yaml
    real data and real teachers
"""

from hf_transinv.commands.multi_teacher import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
