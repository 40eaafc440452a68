"""The one door: every kind of name, and every kind of bad name."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hf_transinv.errors import InputError
from hf_transinv.models import open_classifier


def images(size=32):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


class TestTimmNames:
    def test_architecture_from_scratch(self):
        classifier = open_classifier("wrn10_1_cifar", pretrained=False, num_classes=5, label_names=list("abcde"))
        assert classifier.num_classes == 5 and classifier.label_names == list("abcde")
        assert classifier.input_size == (32, 32) and classifier.source == "wrn10_1_cifar" and classifier.training
        np.testing.assert_allclose(classifier.mean.flatten(), (0.4914, 0.4822, 0.4465), rtol=1e-6)
        assert classifier(images()).shape == (2, 5)

    def test_unknown_name_suggests(self):
        with pytest.raises(InputError, match=r"restnet18.*resnet18"):
            open_classifier("restnet18")

    def test_unknown_tag_lists_known_ones(self):
        with pytest.raises(InputError, match=r"'a9_in1k'; known: .*resnet18\.a1_in1k"):
            open_classifier("resnet18.a9_in1k")

    def test_weights_that_do_not_exist(self):
        with pytest.raises(InputError, match="no weights for 'wrn10_1_cifar'"):
            open_classifier("wrn10_1_cifar")

    def test_weights_out_of_reach(self, hub_cache):
        with pytest.raises(InputError, match=r"resnet18\.a1_in1k.*could not be read or fetched"):
            open_classifier("resnet18.a1_in1k")

    def test_one_class_is_refused(self):
        with pytest.raises(InputError, match="num_classes=1"):
            open_classifier("wrn10_1_cifar", pretrained=False, num_classes=1)


class TestTimmFolder:
    @pytest.mark.parametrize("prefix", ["", "local-dir:"])
    def test_same_logits(self, timm_folder, prefix):
        folder, network = timm_folder
        classifier = open_classifier(f"{prefix}{folder}").eval()
        assert classifier.label_names == ["ant", "bee", "cat"]
        x = images()
        assert torch.equal(classifier(x), network.eval()(classifier.prepare(x)))

    def test_new_head_keeps_everything_else(self, timm_folder):
        folder, network = timm_folder
        classifier = open_classifier(str(folder), num_classes=6).eval()
        assert classifier.num_classes == 6 and classifier.label_names is None
        assert classifier(images()).shape == (2, 6)
        own, new = network.state_dict(), classifier.network.state_dict()
        assert all(torch.equal(own[key], new[key]) for key in own if not key.startswith("head"))

    def test_without_weights_only_the_architecture(self, timm_folder):
        folder, network = timm_folder
        (folder / "model.safetensors").unlink()
        classifier = open_classifier(str(folder), pretrained=False)
        assert classifier.num_classes == 3
        assert not torch.equal(classifier.network.stem.conv.weight, network.stem.conv.weight)

    def test_wrong_shape_names_tensor_and_both_shapes(self, timm_folder):
        folder, _ = timm_folder
        state = load_file(folder / "model.safetensors")
        state["stem.conv.weight"] = torch.zeros(8, 3, 3, 3)
        save_file(state, folder / "model.safetensors")
        with pytest.raises(InputError, match=r"stem\.conv\.weight.*\[8, 3, 3, 3\].*\[16, 3, 3, 3\]"):
            open_classifier(str(folder))

    @pytest.mark.parametrize("num_classes", [None, 6])
    def test_missing_and_unexpected_tensors_are_errors_whatever_the_head(self, timm_folder, num_classes):
        folder, _ = timm_folder
        state = load_file(folder / "model.safetensors")
        state["norms.weight"] = state.pop("norm.weight")
        save_file(state, folder / "model.safetensors")
        with pytest.raises(InputError, match=r"(?s)norm\.weight.*norms\.weight"):
            open_classifier(str(folder), num_classes=num_classes)

    def test_cut_off_file(self, timm_folder):
        folder, _ = timm_folder
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(InputError, match="cannot be loaded"):
            open_classifier(str(folder))

    def test_without_weights(self, timm_folder):
        folder, _ = timm_folder
        (folder / "model.safetensors").unlink()
        with pytest.raises(InputError, match="holds no weights"):
            open_classifier(str(folder))

    @pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pth", "best.pt", "last.ckpt"])
    def test_pickle_only_is_refused_with_the_way_out(self, timm_folder, pickle):
        folder, network = timm_folder
        (folder / "model.safetensors").unlink()
        torch.save(network.state_dict(), folder / pickle)
        with pytest.raises(InputError, match=rf"(?s){pickle}.*safetensors\.torch\.save_file"):
            open_classifier(str(folder))

    def test_unregistered_architecture(self, timm_folder):
        folder, _ = timm_folder
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architecture": "wrn_of_nobody"}))
        with pytest.raises(InputError, match="wrn_of_nobody"):
            open_classifier(str(folder))

    @pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("{}", "neither `architecture`")])
    def test_bad_config(self, timm_folder, text, message):
        folder, _ = timm_folder
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            open_classifier(str(folder))

    def test_missing_folder(self, tmp_path):
        with pytest.raises(InputError, match="No folder"):
            open_classifier(str(tmp_path / "nothing"))

    def test_file_instead_of_folder(self, timm_folder):
        folder, _ = timm_folder
        with pytest.raises(InputError, match="is a file"):
            open_classifier(str(folder / "model.safetensors"))

    def test_saved_by_transformers_wrapper(self, timm_folder, tmp_path):
        from transformers import AutoModelForImageClassification

        folder, network = timm_folder
        config = json.loads((folder / "config.json").read_text())
        config["model_args"].pop("num_classes", None)
        (folder / "config.json").write_text(json.dumps(config))
        AutoModelForImageClassification.from_pretrained(folder).save_pretrained(tmp_path / "wrapped")
        classifier = open_classifier(str(tmp_path / "wrapped")).eval()
        assert classifier.label_names == ["ant", "bee", "cat"]
        x = images()
        assert torch.equal(classifier(x), network.eval()(classifier.prepare(x)))

    def test_size_the_network_was_built_for(self, tmp_path):
        network = timm.create_model("test_vit", img_size=48, num_classes=4)
        timm.models.save_for_hf(network, tmp_path / "vit", safe_serialization=True)
        assert open_classifier(str(tmp_path / "vit")).input_size == (48, 48)

    def test_one_channel_network(self, tmp_path):
        network = timm.create_model("wrn10_1_cifar", in_chans=1)
        timm.models.save_for_hf(network, tmp_path / "grey", safe_serialization=True)
        classifier = open_classifier(str(tmp_path / "grey"))
        assert classifier.mean.shape == (1, 1, 1)
        assert classifier(images()).shape == (2, 10)


class TestBareWeights:
    @pytest.fixture
    def folder(self, tmp_path):
        network = timm.create_model("resnet20_cifar", num_classes=7)
        state = {f"module.{key}".replace("fc.", "linear."): value for key, value in network.state_dict().items()}
        save_file(state, tmp_path / "model.safetensors")
        return tmp_path, network

    def test_class_count_is_read_off_the_file(self, folder):
        path, network = folder
        x = images()
        for classifier in (
            open_classifier(f"resnet20_cifar:{path}"),
            open_classifier(str(path), architecture="resnet20_cifar"),
        ):
            assert classifier.num_classes == 7
            assert torch.equal(classifier.eval()(x), network.eval()(classifier.prepare(x)))
        assert open_classifier(f"resnet20_cifar:{path}", num_classes=3)(x).shape == (2, 3)

    def test_architecture_must_be_named(self, folder):
        with pytest.raises(InputError, match="ARCH:"):
            open_classifier(str(folder[0]))

    def test_architecture_must_fit(self, folder):
        with pytest.raises(InputError, match=r"(?s)resnet32_cifar.*layer1\.3\.conv1\.weight"):
            open_classifier(f"resnet32_cifar:{folder[0]}")
        with pytest.raises(InputError, match=r"resnet21_cifar.*resnet20_cifar"):
            open_classifier(str(folder[0]), architecture="resnet21_cifar")

    def test_unreadable_class_count(self, folder):
        save_file({"conv1.weight": torch.zeros(16, 3, 3, 3)}, folder[0] / "model.safetensors")
        with pytest.raises(InputError, match="number of classes"):
            open_classifier(f"resnet20_cifar:{folder[0]}")

    def test_contradictions(self, folder, timm_folder):
        with pytest.raises(InputError, match="give one"):
            open_classifier(f"resnet20_cifar:{folder[0]}", architecture="resnet32_cifar")
        with pytest.raises(InputError, match=r"has a config\.json"):
            open_classifier(f"wrn10_1_cifar:{timm_folder[0]}")
        with pytest.raises(InputError, match="local folder"):
            open_classifier("wrn10_1_cifar", architecture="wrn10_1_cifar", pretrained=False)
        with pytest.raises(InputError, match="not a Hub id"):
            open_classifier(f"resnet20_cifar:{folder[0]}", revision="main")


class TestTransformers:
    def test_same_logits_as_transformers(self, vit_folder):
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        classifier = open_classifier(str(vit_folder)).eval()
        assert classifier.input_size == (30, 30) and classifier.label_names == ["ant", "bee", "cat", "dog"]
        pixels = torch.randint(0, 256, (1, 3, 30, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        inputs = AutoImageProcessor.from_pretrained(vit_folder)(pixels[0], return_tensors="pt")
        with torch.no_grad():
            expected = AutoModelForImageClassification.from_pretrained(vit_folder)(**inputs).logits
            torch.testing.assert_close(classifier(pixels / 255), expected, rtol=1e-4, atol=1e-5)

    def test_new_head_keeps_everything_else(self, vit_folder):
        stored = load_file(vit_folder / "model.safetensors")
        classifier = open_classifier(str(vit_folder), num_classes=9)
        assert classifier.num_classes == 9 and classifier.label_names is None
        assert classifier(images()).shape == (2, 9)
        state = open_classifier(str(vit_folder)).network.state_dict()
        new = classifier.network.state_dict()
        assert set(new) == set(state) and len(state) == len(stored)
        assert all(torch.equal(state[key], new[key]) for key in state if not key.startswith("classifier"))

    def test_from_scratch(self, vit_folder):
        classifier = open_classifier(str(vit_folder), num_classes=5, pretrained=False)
        assert classifier.training and classifier(images()).shape == (2, 5)

    @pytest.fixture
    def copy(self, vit_folder, tmp_path):
        for file in vit_folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    def edit(self, folder, file, **changes):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **changes}))

    def test_placeholders_are_no_names(self, copy):
        self.edit(copy, "config.json", id2label={str(index): f"LABEL_{index}" for index in range(4)})
        assert open_classifier(str(copy)).label_names is None

    @pytest.mark.parametrize("num_classes", [None, 9])
    def test_broken_weights_are_named(self, copy, num_classes):
        state = load_file(copy / "model.safetensors")
        weight = next(key for key in state if key.endswith("layernorm.weight"))
        bias = next(key for key in state if key.endswith("layernorm.bias"))
        state["stray.weight"] = state.pop(weight)
        state[bias] = torch.zeros(3)
        state["classifier.bias"] = torch.zeros(5)
        save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
        # transformers 4 does not say which shape the file has.
        problems = rf"{weight} is missing.*stray\.weight is not part.*{bias} has .*shape .*expected,? \(16,\)"
        with pytest.raises(InputError, match=problems) as error:
            open_classifier(str(copy), num_classes=num_classes)
        assert ("classifier.bias" in str(error.value)) == (num_classes is None)

    def test_without_processor(self, copy):
        (copy / "preprocessor_config.json").unlink()
        with pytest.raises(InputError, match=r"preprocessor_config\.json"):
            open_classifier(str(copy))

    def test_processor_without_normalisation_and_rescaling(self, copy):
        self.edit(copy, "preprocessor_config.json", do_normalize=False, do_rescale=False)
        classifier = open_classifier(str(copy))
        x = images(30)
        torch.testing.assert_close(classifier.prepare(x), 255 * x)

    def test_not_a_classifier(self, copy):
        self.edit(copy, "config.json", model_type="t5")
        with pytest.raises(InputError, match="image classifier of transformers"):
            open_classifier(str(copy))

    def test_pickle_only(self, copy):
        torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
        (copy / "model.safetensors").unlink()
        with pytest.raises(InputError, match=r"pytorch_model\.bin"):
            open_classifier(str(copy))


class TestHub:
    @pytest.mark.parametrize("name", ["me/wrn", "hf-hub:me/wrn", "hf_hub:me/wrn", "hf-hub:me/wrn@main"])
    def test_timm_layout(self, hub_cache, timm_folder, name):
        folder, network = timm_folder
        hub_cache("me/wrn", folder)
        classifier = open_classifier(name).eval()
        x = images()
        assert torch.equal(classifier(x), network.eval()(classifier.prepare(x)))

    def test_transformers_layout(self, hub_cache, vit_folder):
        hub_cache("me/vit", vit_folder, revision="v1")
        x = images()
        expected = open_classifier(str(vit_folder)).eval()(x)
        assert torch.equal(open_classifier("me/vit", revision="v1").eval()(x), expected)

    @pytest.mark.parametrize("name", ["me/nothing", "hf-hub:me/nothing", "hf-hub:not an id"])
    def test_out_of_reach_names_the_id(self, hub_cache, name):
        with pytest.raises(InputError, match=f"'{name.removeprefix('hf-hub:')}'.*could not be reached"):
            open_classifier(name)

    def test_without_weights(self, hub_cache, timm_folder):
        (timm_folder[0] / "model.safetensors").unlink()
        hub_cache("me/wrn", timm_folder[0])
        with pytest.raises(InputError, match="holds no weights"):
            open_classifier("me/wrn")

    def test_two_revisions(self):
        with pytest.raises(InputError, match=r"'v1'.*'v2'"):
            open_classifier("hf-hub:me/wrn@v1", revision="v2")
