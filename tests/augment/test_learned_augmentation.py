"""A learned augmentation in anybody's loop: it draws what a student turn draws, and gives back what it was given."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from hf_transinv.augment.learned import AugmentationPanel
from hf_transinv.augment.learned_augmentation import LearnedAugmentation
from hf_transinv.augment.selection import Draws
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import open_classifier
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from tests.augment.learned_pair import TEACHERS, build, bytes_, changed, floats, panel, picture, seeded

K = 4


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


# What is drawn


def test_it_deforms_as_the_panel_does_with_the_same_generator():
    augment, made, images = build(), panel(), floats(40)
    selection = augment.selection()
    generator = seeded(3)
    for _ in range(2):
        draws = made.draw_samples(images.shape, images.device, generator, selection)
        assert torch.equal(augment(images), made(images, draws)[0])


def objective(made: AugmentationPanel) -> TransInv:
    student = open_classifier("wrn10_1_cifar", num_classes=3, pretrained=False)
    teachers = torch.nn.ModuleList(EMATeacher(student) for _ in made.models)
    return TransInv(Supervised(student), made, teachers, TransInvConfig())


@pytest.mark.parametrize("estimator", ["expectation", "gumbel"])
def test_it_draws_what_a_student_turn_draws(estimator):
    """To the bit: the objective's own draws, from a generator in the same state."""
    made, images = panel(estimator=estimator), floats(40)
    (drawn,) = objective(made).draw_deformations(tuple(images.shape), seeded(3)).passes
    assert isinstance(drawn, Draws) and drawn.gumbel is None
    expected = made(images, drawn)[0]
    assert torch.equal(build(estimator=estimator)(images), expected)


def share_of(augment: LearnedAugmentation, n: int = 3_000) -> float:
    images = torch.full((n, 3, 16, 16), 0.5) + 0.2 * torch.rand(n, 3, 16, 16, generator=seeded(9))
    return changed(images, augment(images)).float().mean().item()


def test_as_many_images_are_changed_as_r_and_q_say():
    augment = build()
    _, q, r, *_ = augment.selection()
    expected = (r * q).sum().item()
    assert abs(q[0] - q[1]) > 0.3 and abs(r[0] - r[1]) > 0.3
    error = (expected * (1 - expected) / 3_000) ** 0.5
    assert share_of(augment) == pytest.approx(expected, abs=4 * error)


def test_primitives_are_as_frequent_as_p_says():
    """Primitive i alone: what is changed under it is what was drawn for it; the others are switched off."""
    p, q, r, *_ = build().selection()
    for index in range(K):
        augment = build()
        for model in augment.panel.models:
            for other, primitive in enumerate(model.primitives):
                if other != index:
                    primitive.apply_to = lambda images, *_: images
        expected = (r * q * p[:, index]).sum().item()
        error = (expected * (1 - expected) / 3_000) ** 0.5
        assert share_of(augment) == pytest.approx(expected, abs=4 * error), index


@pytest.mark.parametrize("index", range(K))
def test_one_primitive_alone_is_that_primitive(index):
    augment, images = build(q=0.5, only=index), floats(30)
    primitives = [model.primitives[index] for model in augment.panel.models]
    made, generator = panel(q=0.5, only=index), seeded(3)
    draws = made.draw_samples(images.shape, images.device, generator, augment.selection())
    assert set(draws.choice.tolist()) == {index, K}
    deformed = augment(images)
    for b, image in enumerate(images):
        expected = image[None]
        if draws.choice[b] == index:
            primitive = primitives[int(draws.model[b])]
            noise = draws.noise[draws.noise_row[b]][None] if primitive.uses_noise else None
            expected = primitive.apply_to(expected, primitive(draws.z[b : b + 1]), noise)
        torch.testing.assert_close(deformed[b], expected[0], rtol=0, atol=1e-5)


def test_corruptions_are_drawn_as_well():
    augment, images = build(q=1.0, primitives=("gaussian_noise:5", "contrast:3")), floats(20)
    assert changed(images, augment(images)).all()
    assert torch.equal(augment.seed(3)(images), build(q=1.0, primitives=("gaussian_noise:5", "contrast:3"))(images))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("q", [0.0, 1.0])
def test_q_of_nothing_keeps_every_bit_and_q_of_one_changes_every_image(dtype, q):
    images = bytes_() if dtype == torch.uint8 else torch.rand(12, 3, 32, 32, generator=seeded()).double().to(dtype)
    before = images.clone()
    deformed = build(q=q)(images)
    assert deformed.dtype == dtype and deformed.shape == images.shape and torch.equal(images, before)
    assert deformed.data_ptr() != images.data_ptr()
    assert changed(images, deformed).all() if q else torch.equal(deformed, images)
    assert deformed.min() >= 0 and deformed.max() <= (255 if dtype == torch.uint8 else 1)


# What is given back


def test_uint8_is_rounded_and_not_cut_off():
    images = bytes_(40)
    expected = build(q=1.0)(images / 255) * 255
    assert torch.equal(build(q=1.0)(images), expected.round().byte())
    assert not torch.equal(build(q=1.0)(images), expected.byte())


def test_one_image_is_a_batch_of_one():
    for images in (floats(1), bytes_(1)):
        single = build(q=1.0)(images[0])
        assert single.shape == images.shape[1:] and torch.equal(single, build(q=1.0)(images)[0])


def test_a_picture_comes_back_as_a_picture():
    image = picture(torch.randint(0, 256, (3, 10, 14), dtype=torch.uint8, generator=seeded()))
    deformed = build(q=1.0)(image)
    assert isinstance(deformed, Image.Image) and deformed.mode == "RGB" and deformed.size == (14, 10)
    assert torch.equal(pixels(deformed), build(q=1.0)(pixels(image)))
    assert build(q=0.0)(image).tobytes() == image.tobytes()


def test_no_image_at_all_is_fine():
    assert build()(floats(0)).shape == (0, 3, 8, 8) and build()([]) == []


def test_resampled_floats_that_overshoot_are_taken():
    images = floats() * 1.4 - 0.2
    assert torch.equal(build(q=0.0)(images), images)
    deformed = build(q=1.0)(images)
    assert deformed.min() >= 0 and deformed.max() <= 1
    assert torch.equal(deformed, build(q=1.0)(images.clamp(0, 1)))


def test_nothing_is_recorded_and_nothing_can_learn():
    made = panel()
    augment, images = LearnedAugmentation(made, TEACHERS, seed=0), floats().requires_grad_()
    assert not augment(images).requires_grad and not augment.training
    assert not any(parameter.requires_grad for parameter in augment.parameters())
    assert all(parameter.requires_grad for parameter in made.parameters())
    same = build().train()(floats())
    assert torch.equal(same, build().eval()(floats()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.int64), "torch.int64"),
        (torch.zeros(2, 1, 8, 8), r"\[2, 1, 8, 8\].*expand"),
        (torch.zeros(8, 8), r"\[8, 8\]"),
        (torch.full((2, 3, 8, 8), 255.0), "255.*Divide by 255"),
        (torch.full((2, 3, 8, 8), -2.1), "before they are normalised"),
        (torch.full((2, 3, 8, 8), torch.nan), "nan"),
        (torch.zeros(2, 3, 8, 8, device="meta"), "meta.*one device"),
        (Image.new("L", (8, 8)), r"mode L.*convert\('RGB'\)"),
        (np.zeros((8, 8, 3), np.uint8), "ndarray"),
        ("image.png", "str"),
        (None, "NoneType"),
        ({"img": [Image.new("RGB", (8, 8))]}, "'image' among img.*image_column"),
        ({"image": [None]}, "NoneType"),
        (tv_tensors.Mask(torch.zeros(1, 3, 8, 8)), "Mask"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_anything_else_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        build()(given)


def test_half_an_augmentation_is_refused():
    with pytest.raises(InputError, match=r"torch.float16.*augment.to"):
        build().half()(floats())
    with pytest.raises(InputError, match="2 augmentation models"):
        LearnedAugmentation(panel(), ["a"])


def test_one_of_a_run_that_diverged_is_refused():
    made = panel()
    torch.nn.init.constant_(made.models[1].logit_q, torch.nan)
    with pytest.raises(InputError, match="did not diverge"):
        LearnedAugmentation(made, TEACHERS)
