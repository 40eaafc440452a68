r"""Train a student under augmentations that are learned against its teachers (TransInv), and publish it.

python recipes/multi_teacher.py
    the embedded default: digits, two small teachers and the student's own
    average; a minute on two cores

transinv multi-teacher --mixed_precision bf16 --config \
    recipes/configs/cifar100_three_teachers.yaml
    real data and real teachers
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("multi_teacher", __doc__)
