"""Which networks say what their features are."""

import pytest
import timm
import torch
from torch import nn

from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.features import inputs_of, last_layer

STATISTICS = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "input_size": (32, 32)}


@pytest.mark.parametrize(
    "architecture", ["test_vit", "test_resnet", "test_efficientnet", "resnet20_cifar", "wrn10_1_cifar"]
)
def test_features_are_those_timm_names(architecture):
    options = {"img_size": 32} if "vit" in architecture else {}
    network = timm.create_model(architecture, num_classes=5, **options).eval()
    classifier = Classifier(network, num_classes=5, **STATISTICS)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with inputs_of(last_layer(classifier)) as entered:
        logits = classifier(images)
    expected = network.forward_head(network.forward_features(classifier.prepare(images)), pre_logits=True)
    torch.testing.assert_close(entered[0].flatten(1), expected)
    assert entered[0].requires_grad
    torch.testing.assert_close(last_layer(classifier)(entered[0]).flatten(1), logits)
    assert not last_layer(classifier)._forward_pre_hooks


def test_others_are_not_known(vit_folder):
    two_heads = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 1}
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, **two_heads)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    for network in (distilled, plain):
        assert last_layer(Classifier(network, num_classes=5, **STATISTICS)) is None
    assert last_layer(open_classifier(str(vit_folder))) is None
