"""Layers, heads and kinds of networks: timm's own answers for timm, and for transformers those of its twin in timm."""

import pytest
import timm
import torch
from timm.models import group_parameters
from transformers import AutoConfig, AutoModelForImageClassification

from hf_transinv.errors import InputError
from hf_transinv.models.layer_groups import (
    group_matcher,
    head_parameters,
    is_transformer,
    knows_layers,
    layer_groups,
    outline,
)
from tests.models.families import TINY


def of_transformers(kind: str, **changes: object) -> torch.nn.Module:
    config = AutoConfig.for_model(kind, **TINY[kind] | changes, num_labels=3)
    with torch.device("meta"):
        return AutoModelForImageClassification.from_config(config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("test_vit", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "mobilevit_xxs")),
        *((name, False) for name in ("test_resnet", "wrn10_1_cifar", "resnet20_cifar", "convnext_atto", "seresnet18")),
        ("resnet50_clip", False),  # a single layer of attention, in place of the mean
        ("model_cards/digits_light", False),
    ],
)
def test_attention_makes_a_transformer(name, expected):
    network = outline(name)
    assert is_transformer(network) is expected
    assert {x.device.type for x in network.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *((kind, True) for kind in ("vit", "beit", "swin", "dinov2")),
        *((kind, False) for kind in ("resnet", "convnext")),
    ],
)
def test_so_it_is_with_those_of_transformers(kind, expected):
    depth = {"num_hidden_layers": 2} if "num_hidden_layers" in TINY[kind] else {}
    assert is_transformer(of_transformers(kind, **depth)) is expected


def test_the_head_is_what_the_classes_decide():
    assert head_parameters(timm.create_model("test_vit", num_classes=3)) == {"head.weight", "head.bias"}
    assert head_parameters(timm.create_model("wrn10_1_cifar")) == {"head.fc.weight", "head.fc.bias"}
    assert head_parameters(of_transformers("vit")) == {"classifier.weight", "classifier.bias"}
    twice = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, depth=1, embed_dim=12, num_heads=1)
    assert head_parameters(twice) == {f"{head}.{x}" for head in ("head", "head_dist") for x in ("weight", "bias")}
    with pytest.raises(InputError, match="classifier head of a VisionTransformer is not known"):
        head_parameters(timm.create_model("test_vit", num_classes=0))


@pytest.mark.parametrize("kind", ["vit", "beit", "dinov2"])
def test_the_layers_of_an_encoder_of_transformers(kind):
    """Embeddings, then each block, the last with the norm behind it, then the head; as timm has them in a ViT."""
    network = of_transformers(kind, num_hidden_layers=3)
    layers = group_parameters(network, group_matcher(network), reverse=True)
    assert set(layers) == {name for name, _ in network.named_parameters()}
    assert max(layers.values()) == 4
    for name, layer in layers.items():
        block = next((int(part) for part in name.split(".") if part.isdecimal() and "layer" in name), None)
        if name in head_parameters(network):
            assert layer == 4, name
        elif block is not None:
            assert layer == block + 1, name
        else:
            assert layer == (0 if "embeddings" in name else 3), name


def test_how_deep_a_part_of_a_stage_is_cannot_be_read_off():
    for kind in ("swin", "resnet"):
        network = of_transformers(kind, depths=[2, 2])
        assert not knows_layers(network)
        with pytest.raises(InputError, match=r"are not known.*--layer_decay null"):
            group_matcher(network)
        assert len(layer_groups(network)) >= 4  # stages are known: stem, two stages, head
    with pytest.raises(InputError, match="no group_matcher"):
        group_matcher(timm.create_model("poolformer_s12"))


def test_coarse_groups_are_timms_and_have_the_statistics_of_batchnorm():
    network = timm.create_model("test_resnet", num_classes=3)
    groups = layer_groups(network)
    expected = group_parameters(network, network.group_matcher(coarse=True))
    parameters = {name for name, _ in network.named_parameters()}
    assert [[name for name in group if name in parameters] for group in groups] == [*expected.values()]
    assert "bn1.running_mean" in groups[0] and "layer1.0.bn1.running_var" in groups[1]
