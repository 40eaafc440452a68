"""Teachers stay frozen and let gradients through; the EMA teacher equals a slow reference; panels of them."""

import copy

import pytest
import timm
import torch
from torch import nn

from hf_transinv.errors import InputError
from hf_transinv.models import EMATeacher, Teacher, build_teachers, open_classifier


def images(batch=4, seed=0):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def student():
    torch.manual_seed(0)
    return open_classifier("wrn10_1_cifar", pretrained=False, num_classes=5)


def state_of(module):
    """Every parameter and every buffer, persistent or not."""
    return {name: value.clone() for name, value in [*module.named_parameters(), *module.named_buffers()]}


def same(before, after):
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def train_step(student, seed):
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    student.train()(images(seed=seed)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def save_timm(name, folder, **kwargs):
    timm.models.save_for_hf(timm.create_model(name, num_classes=6, **kwargs), folder, safe_serialization=True)
    return str(folder)


class TestTeacher:
    @pytest.mark.parametrize("kind", ["test_vit", "test_convnext", "wrn10_1_cifar", "transformers"])
    def test_gradient_reaches_a_32_px_input_and_nothing_moves(self, tmp_path, vit_folder, kind):
        sizes = {"img_size": 48} if kind == "test_vit" else {}
        folder = str(vit_folder) if kind == "transformers" else save_timm(kind, tmp_path, **sizes)
        teacher = Teacher(open_classifier(folder))
        assert teacher.num_classes == (4 if kind == "transformers" else 6)
        if kind == "test_vit":
            assert teacher.classifier.input_size == (48, 48)
        before = state_of(teacher)
        nn.ModuleList([teacher]).train()
        x = images().requires_grad_()
        logits = teacher(x)
        logits.square().sum().backward()
        assert logits.shape == (4, teacher.num_classes)
        assert x.grad.abs().amax((1, 2, 3)).min() > 0
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
        assert not any(module.training for module in teacher.modules())
        assert same(before, state_of(teacher))

    def test_names(self, vit_folder):
        teacher = Teacher(open_classifier(str(vit_folder)))
        assert teacher.name == str(vit_folder) and teacher.label_names == ["ant", "bee", "cat", "dog"]
        assert Teacher(teacher.classifier, name="vit").name == "vit"


class TestEMA:
    def test_equals_slow_reference_buffers_included(self, student):
        """One tensor at a time, in float64, from the formula; far enough that the warm-up ends (0.5 at t = 8)."""
        decay = 0.5
        teacher = EMATeacher(student, decay)
        reference = {name: value.double() for name, value in state_of(student).items()}
        for step in range(12):
            train_step(student, seed=step)
            teacher.update(student)
            d = min(decay, (1 + step) / (10 + step))
            for name, value in state_of(student).items():
                floating = value.is_floating_point()
                reference[name] = d * reference[name] + (1 - d) * value.double() if floating else value
        assert min(decay, (1 + step) / (10 + step)) == decay
        own = state_of(teacher.classifier)
        for name, expected in reference.items():
            torch.testing.assert_close(own[name].double(), expected.double(), rtol=1e-5, atol=1e-6)
        moved = [name for name in own if "running" in name]
        assert moved and not any(torch.equal(own[name], state_of(student)[name]) for name in moved)
        assert own["network.norm.num_batches_tracked"] == 12

    def test_student_is_left_alone(self, student):
        student.train()(images()).sum().backward()
        before = state_of(student)
        gradients = [parameter.grad.clone() for parameter in student.parameters()]
        teacher = EMATeacher(student)
        teacher.update(student)
        assert student.training and same(before, state_of(student))
        for parameter, gradient in zip(student.parameters(), gradients, strict=True):
            assert parameter.requires_grad and torch.equal(parameter.grad, gradient)
        assert all(parameter.grad is None for parameter in teacher.parameters())
        shared = {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}
        assert not shared

    def test_follows_only_when_asked(self, student):
        teacher = EMATeacher(student)
        before = state_of(teacher)
        train_step(student, seed=0)
        teacher(images().requires_grad_()).sum().backward()
        assert same(before, state_of(teacher))

    def test_resumes_to_the_bit(self, student):
        teacher = EMATeacher(student)
        for step in range(3):
            train_step(student, seed=step)
            teacher.update(student)
        resumed = EMATeacher(copy.deepcopy(student))
        resumed.load_state_dict(teacher.state_dict())
        assert resumed.num_updates == 3
        train_step(student, seed=3)
        teacher.update(student)
        resumed.update(student)
        assert same(state_of(teacher), state_of(resumed))

    @pytest.mark.parametrize("decay", [-0.1, 1.0])
    def test_decay_out_of_range(self, student, decay):
        with pytest.raises(InputError, match="0 <= decay < 1"):
            EMATeacher(student, decay)


class TestPanel:
    def test_order_and_sharing(self, student, tmp_path, vit_folder):
        folder = save_timm("wrn10_1_cifar", tmp_path)
        panel = build_teachers([folder, "ema", str(vit_folder), "ema", folder], student, ema_decay=0.9)
        assert [teacher.name for teacher in panel] == [folder, "ema", str(vit_folder), "ema", folder]
        assert panel[1] is panel[3] and panel[0] is panel[4]
        assert isinstance(panel[1], EMATeacher) and panel[1].decay == 0.9
        assert panel[1].num_classes == student.num_classes

    @pytest.mark.parametrize("names", [[], "ema"])
    def test_no_list_of_names(self, student, names):
        with pytest.raises(InputError, match="at least one name"):
            build_teachers(names, student)

    def test_unknown_teacher(self, student):
        with pytest.raises(InputError, match="Unknown model 'emma'"):
            build_teachers(["emma"], student)
