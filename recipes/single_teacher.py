r"""Fine-tune a teacher's own weights for another task and keep its invariances (TransInv, section 4.2).

python recipes/single_teacher.py --dataset uoft-cs/cifar100 \
    --label_column fine_label --teachers hf-hub:USER/TEACHER \
    --num_train_epochs 30 --baselines plain crop_flip
    the student starts from the teacher's weights with a new head
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("single_teacher", __doc__)
