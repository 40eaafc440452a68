r"""Train a student under augmentations that are learned against its teachers (TransInv), and publish it.

transinv multi-teacher
    the embedded default: digits, two small teachers and the student's own
    average; a minute on two cores

transinv multi-teacher --mixed_precision bf16 \
    --config cifar100_three_teachers
    real data and real teachers
"""

from hf_transinv.experiment.entry import train
from hf_transinv.experiment.recommended import RECOMMENDED
from hf_transinv.resolve.shipped import config_folder


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    train("multi_teacher", description, config_folder() / "digits.yaml", **RECOMMENDED)
