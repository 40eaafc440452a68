r"""Fine-tune a teacher's own weights for another task and keep its invariances (TransInv, section 4.2).

accelerate launch recipes/single_teacher.py --dataset uoft-cs/cifar100 \
    --label_column fine_label --teachers hf-hub:USER/TEACHER \
    --num_train_epochs 30 --baselines plain crop_flip
    the student starts from the teacher's weights with a new head
"""

from hf_transinv.commands.single_teacher import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
