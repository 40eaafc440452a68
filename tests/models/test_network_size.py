"""Networks at another size than their checkpoint's, and what they are built with.

The oracles: timm's `set_input_size` and `create_model(img_size=...)`, transformers' `interpolate_pos_encoding=True`.
"""

import copy
import json
import logging
import shutil
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_transinv.config import StudentConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.methods import MethodBuilder, MethodConfig, new_student
from hf_transinv.models import build_teachers, open_classifier
from tests.models.families import SIDE, tiny_folder

VIT = {"depth": 2, "embed_dim": 24, "num_heads": 2}
SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NAMES = ["ant", "bee", "cat"]


def pixels(side, count=2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(side))


def saved_timm(folder, name, num_classes=3, **arguments):
    torch.manual_seed(1)
    network = timm.create_model(name, num_classes=num_classes, **arguments)
    timm.models.save_for_hf(network, folder, model_config={"label_names": NAMES}, safe_serialization=True)
    return str(folder), network.eval()


def saved_transformers(folder, network, side):
    network.save_pretrained(folder)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def timm_vit(tmp_path_factory):
    """A ViT for 64 px with patches of 16: position embeddings for 4x4 of them."""
    return saved_timm(tmp_path_factory.mktemp("timm_vit"), "vit_tiny_patch16_224", img_size=64, **VIT)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """The same of transformers, for 32 px with patches of 8, and position embeddings that matter."""
    torch.manual_seed(1)
    network = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=3, **TINY)).eval()
    torch.nn.init.normal_(network.vit.embeddings.position_embeddings)
    return saved_transformers(tmp_path_factory.mktemp("vit"), network, 32), network


class TestTimm:
    def test_a_vit_has_its_position_embeddings_resampled(self, timm_vit, caplog):
        folder, network = timm_vit
        with caplog.at_level(logging.INFO):
            classifier = open_classifier(folder, input_size=96).eval()
        expected = copy.deepcopy(network)
        expected.set_input_size((96, 96))
        x = pixels(96)
        assert classifier.input_size == (96, 96) and classifier.image_size == 96 and classifier.published is None
        assert torch.equal(classifier(x), expected(classifier.prepare(x)))
        assert "images of 96 px, and resamples" in caplog.text and classifier.label_names == NAMES

    def test_its_own_size_changes_nothing(self, timm_vit):
        folder, network = timm_vit
        classifier = open_classifier(folder, input_size=64).eval()
        assert classifier.published is not None
        assert torch.equal(classifier(pixels(64)), network(classifier.prepare(pixels(64))))

    def test_weights_are_loaded_strictly_before(self, timm_vit, tmp_path):
        """A checkpoint that lacks position embeddings is refused, and not filled with new ones."""
        shutil.copy(f"{timm_vit[0]}/config.json", tmp_path)
        weights = load_file(f"{timm_vit[0]}/model.safetensors")
        del weights["pos_embed"]
        save_file(weights, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match="pos_embed"):
            open_classifier(str(tmp_path), input_size=96)

    @pytest.mark.parametrize("side", [96, 128])
    def test_windows_grow_with_the_grid(self, tmp_path, side):
        folder, network = saved_timm(tmp_path, "swin_tiny_patch4_window7_224", **SWIN)
        classifier = open_classifier(folder, input_size=side).eval()
        network.set_input_size((side, side))
        assert torch.equal(classifier(pixels(side)), network(classifier.prepare(pixels(side))))

    def test_a_convolutional_network_gets_another_size(self, tmp_path):
        arguments = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
        folder, network = saved_timm(tmp_path, "convnextv2_atto", **arguments)
        classifier = open_classifier(folder, input_size=64).eval()
        x = pixels(80)
        assert classifier.input_size == (64, 64) and classifier.prepare(x).shape[-2:] == (64, 64)
        assert torch.equal(classifier(x), network(classifier.prepare(x)))
        assert all(map(torch.equal, classifier.network.state_dict().values(), network.state_dict().values()))

    def test_a_network_without_weights_is_built_for_the_size(self):
        torch.manual_seed(0)
        classifier = open_classifier(
            "vit_tiny_patch16_224", pretrained=False, num_classes=3, input_size=48, model_args=VIT
        )
        positions = classifier.network.pos_embed
        assert positions.shape == (1, 1 + 9, 24) and classifier.eval()(pixels(32)).shape == (2, 3)
        assert 0.015 < positions.std() < 0.025  # as timm draws them; resampled ones vary less

    def test_a_new_head_comes_behind(self, timm_vit):
        classifier = open_classifier(timm_vit[0], input_size=96, num_classes=7)
        assert classifier.eval()(pixels(40)).shape == (2, 7)

    @pytest.mark.parametrize(
        ("name", "arguments", "side", "said"),
        [
            ("vit_tiny_patch16_224", {"img_size": 64, **VIT}, 72, "patches of 16 px.*give 64 or 80"),
            (
                "cait_xxs24_224",
                {"img_size": 64, "depth": 1, "embed_dim": 16, "num_heads": 2},
                96,
                "timm cannot bring .* to images of 96 px: .*pos_embed.*Leave the size out",
            ),
            ("test_resnet", {}, 9000, "expected 1 to 8192"),
        ],
    )
    def test_a_size_that_a_network_does_not_take_is_refused(self, tmp_path, name, arguments, side, said):
        folder, _ = saved_timm(tmp_path, name, **arguments)
        with pytest.raises(InputError, match=said):
            open_classifier(folder, input_size=side)


class TestTransformers:
    @pytest.mark.parametrize("side", [24, 48])
    def test_a_vit_answers_as_with_interpolate_pos_encoding(self, vit, side):
        folder, network = vit
        classifier = open_classifier(folder, input_size=side).eval()
        x = pixels(side)
        expected = network(classifier.prepare(x), interpolate_pos_encoding=True).logits
        torch.testing.assert_close(classifier(x), expected)
        assert classifier.network.config.image_size == side and classifier.input_size == (side, side)
        assert classifier.published is None and network.config.image_size == 32

    def test_a_network_without_weights_is_built_for_the_size(self, vit):
        classifier = open_classifier(vit[0], pretrained=False, input_size=48)
        assert classifier.network.vit.embeddings.position_embeddings.shape[1] == 1 + 36
        assert classifier.eval()(pixels(48)).shape == (2, 3)

    @pytest.mark.parametrize("kind", ["dinov2", "swin", "convnext"])
    def test_networks_that_take_any_size(self, tmp_path, kind):
        torch.manual_seed(1)
        if kind == "dinov2":
            few = {key: value for key, value in TINY.items() if key != "intermediate_size"}
            network = Dinov2ForImageClassification(Dinov2Config(image_size=32, patch_size=8, **few))
            torch.nn.init.normal_(network.dinov2.embeddings.position_embeddings)
        elif kind == "swin":
            sizes = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
            network = SwinForImageClassification(SwinConfig(image_size=32, patch_size=2, **sizes))
        else:
            sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
            network = ConvNextForImageClassification(ConvNextConfig(image_size=32, **sizes))
        folder = saved_transformers(tmp_path, network.eval(), 32)
        classifier = open_classifier(folder, input_size=64).eval()
        expected = network(classifier.prepare(pixels(64))).logits
        torch.testing.assert_close(classifier(pixels(64)), expected)
        assert classifier.network.config.image_size == 64

    @pytest.mark.parametrize(("family", "said"), [("levit", "size of tensor"), ("hiera", "cannot be written into")])
    def test_a_network_that_cannot_be_brought_there_is_refused(self, tmp_path, family, said):
        folder = tiny_folder(family, tmp_path)
        with pytest.raises(InputError, match=f"transformers cannot bring .* to images of 128 px: .*{said}.*Leave"):
            open_classifier(str(folder), input_size=2 * SIDE)

    @pytest.mark.parametrize("family", ["clip", "siglip", "deit", "pvt_v2"])
    def test_other_families(self, tmp_path, family):
        """The configuration's image_size may be in a part of it, or be a list."""
        folder = tiny_folder(family, tmp_path)
        network = AutoModelForImageClassification.from_pretrained(folder).eval()
        classifier = open_classifier(str(folder), input_size=2 * SIDE).eval()
        x = classifier.prepare(pixels(2 * SIDE))
        flag = {} if family == "pvt_v2" else {"interpolate_pos_encoding": True}
        torch.testing.assert_close(classifier(pixels(2 * SIDE)), network(x, **flag).logits)
        config = getattr(classifier.network.config, "vision_config", classifier.network.config)
        assert config.image_size == ([128, 128] if family == "pvt_v2" else 128)

    def test_patches_must_cover_the_image(self, vit):
        with pytest.raises(InputError, match=r"patches of 8 px, and 50.*give 48 or 56"):
            open_classifier(vit[0], input_size=50)


class TestTwoFilesThatDisagree:
    """The image processor makes images of another size than the network is built for."""

    def test_it_opens_at_the_size_that_works(self, vit, tmp_path, caplog):
        _, network = vit
        classifier = open_classifier(saved_transformers(tmp_path, network, 48)).eval()
        assert classifier.input_size == (32, 32) and classifier.image_size == 32
        torch.testing.assert_close(classifier(pixels(32)), network(classifier.prepare(pixels(32))).logits)
        assert "makes images of 48x48 px, and its network is built for 32x32 px: it is given 32x32" in caplog.text
        with pytest.raises(InputError, match="makes images of 48x48 px, which its network does not take"):
            classifier.take_published()

    def test_the_processor_is_followed_where_the_network_takes_its_size(self, tmp_path):
        sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
        network = ConvNextForImageClassification(ConvNextConfig(image_size=32, **sizes))
        classifier = open_classifier(saved_transformers(tmp_path, network, 64))
        assert classifier.input_size == (64, 64) and classifier.published.size == (64, 64)

    def test_it_is_refused_where_it_answers_to_neither(self, tmp_path):
        """The convolutions of this LeViT leave another grid than its attention is built for, at any size."""
        folder = tiny_folder("levit", tmp_path)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "image_size": 4 * SIDE, "stride": 8}))
        with pytest.raises(InputError, match=r"makes images of 64x64 px, .* built for 256x256 px \(.*Correct its"):
            open_classifier(str(folder), pretrained=False, model_args={"kernel_size": 1})

    def test_a_size_decides(self, vit, tmp_path):
        _, network = vit
        folder = saved_transformers(tmp_path, network, 48)
        classifier = open_classifier(folder, input_size=48).eval()
        expected = network(classifier.prepare(pixels(48)), interpolate_pos_encoding=True).logits
        torch.testing.assert_close(classifier(pixels(48)), expected)


class TestArguments:
    def test_of_timm(self, timm_vit):
        classifier = open_classifier(timm_vit[0], model_args={"drop_path_rate": 0.5, "drop_rate": 0.25})
        network = classifier.network
        assert network.head_drop.p == 0.25 and network.blocks[-1].drop_path1.drop_prob == 0.5
        state = timm_vit[1].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())

    def test_of_transformers(self, vit):
        classifier = open_classifier(vit[0], model_args={"hidden_dropout_prob": 0.25})
        assert classifier.network.vit.embeddings.dropout.p == 0.25

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"drop_rat": 0.1}, "model_args drop_rat: .*no such argument; did you mean drop_rate"),
            ({"drop_rate": 0.1, "dropout": 0.1}, "model_args dropout: .*no such argument"),
            ({"depth": 200_000}, "depth 200000; expected at most"),
            ({"depth": 4}, "cannot be loaded"),
            ({"num_classes": 4}, "model_args cannot set num_classes: the classes are those of the data"),
        ],
    )
    def test_timm_does_not_take(self, timm_vit, values, said):
        with pytest.raises(InputError, match=said):
            open_classifier(timm_vit[0], model_args=values)

    def test_a_network_that_takes_anything_is_refused(self, monkeypatch):
        known = timm.models.model_entrypoint("test_resnet")

        def greedy(**arguments):
            return known()

        monkeypatch.setattr(timm.models._factory, "model_entrypoint", lambda name: greedy)
        with pytest.raises(InputError, match="takes any argument, known or not"):
            open_classifier("test_vit", pretrained=False, model_args={"drop_rate": 0.1})

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"hidden_dropout": 0.1}, "ViTConfig of .*no such field; did you mean hidden_dropout_prob"),
            ({"output_attentions": True}, "no such field"),
            ({"num_hidden_layers": 3}, "missing"),
            ({"image_size": 48}, "model_args cannot set image_size: give student_size"),
        ],
    )
    def test_transformers_does_not_take(self, vit, values, said):
        with pytest.raises(InputError, match=said):
            open_classifier(vit[0], model_args=values)


class TestGradCheckpointing:
    @pytest.mark.parametrize("library", ["timm", "transformers"])
    def test_gradients_are_the_same(self, timm_vit, vit, library, monkeypatch):
        """With dropout, whose masks are drawn once; and the blocks are computed twice."""
        name, values = (timm_vit[0], {"drop_path_rate": 0.5, "proj_drop_rate": 0.1})
        if library == "transformers":
            name, values = vit[0], {"hidden_dropout_prob": 0.3}
        gradients, passes = [], []
        for enabled in (False, True):
            classifier = open_classifier(name, model_args=values, grad_checkpointing=enabled)
            norms = [module for module in classifier.modules() if isinstance(module, torch.nn.LayerNorm)]
            norms[0].register_forward_hook(lambda *_: passes.append(enabled))  # noqa: B023 (called in the turn)
            x = pixels(32).requires_grad_()
            torch.manual_seed(3)
            classifier(x).square().sum().backward()
            gradients.append([x.grad, *(parameter.grad for parameter in classifier.parameters())])
        assert passes == [False, True, True]
        assert all(map(torch.equal, *gradients))

    @pytest.mark.parametrize(
        ("name", "said"),
        [("test_resnet", "BatchNorm, whose running"), ("convmixer_768_32", "BatchNorm"), ("convit_tiny", "none")],
    )
    def test_refused_with_the_reason(self, name, said):
        with pytest.raises(InputError, match=f"grad_checkpointing.*{said}"):
            open_classifier(name, pretrained=False, num_classes=3, grad_checkpointing=True)


class TestInARun:
    def test_the_student_has_what_its_flags_say(self, timm_vit):
        config = StudentConfig(
            timm_vit[0],
            "pretrained",
            student_size=96,
            model_args=("drop_path_rate=0.5", "drop_rate=1e-1"),
            grad_checkpointing=True,
        )
        student = new_student(config, ["x", "y"], seed=0)
        network = student.network
        assert student.input_size == (96, 96) and network.grad_checkpointing
        assert network.blocks[-1].drop_path1.drop_prob == 0.5 and network.head_drop.p == 0.1
        again = new_student(config, ["x", "y"], seed=0)
        assert all(map(torch.equal, student.state_dict().values(), again.state_dict().values()))

    def test_teachers_have_sizes_of_their_own(self, timm_vit, vit):
        names = (timm_vit[0], "ema", vit[0])
        config = StudentConfig("test_vit", teachers=names, teacher_size=(96, 48), student_size=32)
        student = new_student(config, NAMES, seed=0)
        teachers = build_teachers(names, student, input_sizes=config.teacher_sizes)
        assert [teacher.classifier.input_size[0] for teacher in teachers] == [96, 32, 48]
        assert StudentConfig("test_vit", teachers=names, teacher_size=(64,)).teacher_sizes == {
            timm_vit[0]: 64,
            vit[0]: 64,
        }
        teachers = build_teachers(names[:2], student)
        assert [teacher.classifier.input_size[0] for teacher in teachers] == [64, 32]

    def test_a_peer_like_the_student_is_built_like_it(self, timm_vit):
        options = {"student_size": 96, "model_args": ("drop_rate=0.1",), "grad_checkpointing": True}
        names = StudentConfig(timm_vit[0], "pretrained", **options)
        student = new_student(names, NAMES, seed=0)
        for peers in ((), ("test_vit", timm_vit[0])):
            method = MethodConfig("mutual", peers=peers)
            builder = SimpleNamespace(session=student, names=names, method=method)
            for peer in MethodBuilder.peers(builder, student):
                assert peer.input_size == (96, 96) and peer.network.grad_checkpointing
                assert peer.network.head_drop.p == (0.0 if peers else 0.1)

    def test_a_peer_like_a_teacher_is_built_like_it(self, timm_vit, vit):
        """Of both libraries: with what the teacher's config.json says, and without its weights."""
        for folder in (timm_vit[0], vit[0]):
            names = StudentConfig(student_init="teacher:1", teachers=(folder,))
            student = new_student(names, NAMES, seed=0)
            builder = SimpleNamespace(session=student, names=names, method=MethodConfig("mutual"))
            (peer,) = MethodBuilder.peers(builder, student)
            own, others = student.state_dict(), peer.state_dict()
            assert {name: x.shape for name, x in own.items()} == {name: x.shape for name, x in others.items()}
            assert peer.input_size == student.input_size and peer.label_names == NAMES
            assert not any(
                torch.equal(x, others[name]) for name, x in own.items() if x.ndim > 1 and "token" not in name
            )


def test_plain_transformers_refuses_what_we_mend(vit):
    """The premise: without its flag, the network's own check raises at another size."""
    network = AutoModelForImageClassification.from_pretrained(vit[0])
    with pytest.raises(ValueError, match="doesn't match"):
        network(torch.zeros(1, 3, 48, 48))
