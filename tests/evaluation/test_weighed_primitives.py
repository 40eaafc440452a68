"""How hard primitives are for a student and how far they move teachers, beside one image at a time."""

import pytest
import torch
from accelerate import Accelerator

from hf_transinv.augment.corruptions import corrupt
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.evaluation.weighed_primitives import weigh_primitives
from hf_transinv.models import EMATeacher
from tests.objectives.tiny import classifier, teacher
from tests.oracles import transinv as oracle

CLASSES = 5


def test_each_primitive_as_one_image_at_a_time_says():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (11, 3, 8, 8), generator=generator, dtype=torch.uint8)
    split = ResidentSplit(images, torch.arange(11) % CLASSES, [f"class {k}" for k in range(CLASSES)])
    student = classifier(CLASSES)
    teachers = [teacher(3, 8, seed=1), EMATeacher(student)]
    panel = AugmentationPanel(1, AugmentationConfig(("contrast:3", "geometric", "gaussian_noise")))
    clean, hard, keep = weigh_primitives(student, teachers, panel, split, Accelerator(cpu=True))
    pixels, expected = images / 255, {"keep": [0.0, 0.0]}
    for name, shown in (("clean", pixels), ("hard", corrupt(pixels, "contrast", 3))):
        answers = [oracle.softmax(student(image[None])[0].double()) for image in shown]
        losses = [-answer[label].log().item() for answer, label in zip(answers, split.labels, strict=True)]
        expected[name] = sum(losses) / 11
    for place, judge in enumerate(teachers):
        for before, after in zip(pixels, corrupt(pixels, "contrast", 3), strict=True):
            moved = oracle.teacher_loss(judge(before[None])[0].double(), judge(after[None])[0].double(), "kl")
            expected["keep"][place] += moved.item() / 11
    assert clean == pytest.approx(expected["clean"], rel=1e-4)
    assert hard["contrast:3"] == pytest.approx(expected["hard"], rel=1e-4)
    assert [of_teacher["contrast:3"] for of_teacher in keep] == pytest.approx(expected["keep"], rel=1e-3, abs=1e-6)
    again = weigh_primitives(student, teachers, panel, split, Accelerator(cpu=True))
    assert again == (clean, hard, keep) and all(min(of_teacher.values()) > 0 for of_teacher in keep)
    assert not student.training
