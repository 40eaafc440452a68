"""Train a student under augmentations that are learned against its teachers (TransInv), and publish it.

accelerate launch recipes/multi_teacher.py
    the embedded default: digits, two small teachers and the student's own average; two minutes on two cores

accelerate launch --mixed_precision bf16 recipes/multi_teacher.py --config recipes/configs/cifar100_three_teachers.yaml
    real data and real teachers; every field can be given on the command line, too (--help)
"""

from pathlib import Path

import torch

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.checkpoint import save_augmentation
from hf_transinv.command_line import parse
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.data.crops import to_float
from hf_transinv.figures import plot_augmentations, plot_history
from hf_transinv.launch import clear_errors
from hf_transinv.models.teacher import build_teachers
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.publish import publish
from hf_transinv.record import read_metrics
from hf_transinv.run import Session, new_student

BASELINES = {"plain": ("fine-tuning", "none", False), "crop_flip": ("crop + flip", "pad", True)}


def main() -> None:
    groups = parse(
        [DataConfig, StudentConfig, TrainConfig, TransInvConfig, AugmentationConfig, PrimitiveConfig, OutputConfig],
        default_config=Path(__file__).parent / "configs" / "digits.yaml",
        description=__doc__,
    )
    data, names, train, method, augment, primitive, output = groups
    augment.primitive = primitive
    session = Session("multi_teacher", data, train, output, as_dict(*groups))

    student = new_student(names, session.data.label_names, train.seed)
    teachers = build_teachers(names.teachers, student, names.ema_decay).to(session.accelerator.device)
    augmentation = AugmentationPanel(len(teachers), augment)
    objective = TransInv(student, augmentation, teachers, method, train.label_smoothing)
    session.fit("TransInv", objective, data.crop, data.flip)

    if session.accelerator.is_main_process:
        teacher_names = [teacher.name for teacher in teachers]
        history = read_metrics(session.folder / "metrics.jsonl")
        shown = {"teacher_names": teacher_names, "primitive_names": list(augment.primitives)}
        save_augmentation(augmentation, teacher_names, session.folder / "augmentation")
        plot_history([line for line in history if "p" in line], session.folder / "figures" / "selection.png", **shown)
        images = to_float(session.data.evaluation.images[:4])
        deformed = augmentation.preview(images, torch.Generator().manual_seed(train.seed))
        learned = session.rows["TransInv"]["learned"]
        path = session.folder / "figures" / "augmentation.png"
        plot_augmentations(images.cpu(), deformed.cpu(), path, p=learned["p"], q=learned["q"], **shown)

    for baseline in output.baselines:
        title, crop, flip = BASELINES[baseline]
        rival = new_student(names, session.data.label_names, train.seed)
        session.fit(title, Supervised(rival, train.label_smoothing), crop, flip)
    print(publish(session, objective, teachers=teachers, augmentation=augmentation))


if __name__ == "__main__":
    with clear_errors():
        main()
