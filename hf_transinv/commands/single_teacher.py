r"""Fine-tune a teacher's own weights for another task and keep its invariances (TransInv, section 4.2).

transinv single-teacher --dataset uoft-cs/cifar100 --label_column fine_label \
    --teachers hf-hub:USER/TEACHER --num_train_epochs 30 \
    --baselines plain crop_flip
    the student starts from the teacher's weights with a new head
"""

from hf_transinv.experiment.entry import train
from hf_transinv.experiment.recommended import RECOMMENDED
from hf_transinv.resolve.shipped import config_folder


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    default = config_folder() / "digits_single_teacher.yaml"
    train("single_teacher", description, default, student_init="teacher:1", **RECOMMENDED)
