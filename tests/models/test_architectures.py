"""WideResNet and the CIFAR ResNet: published parameter counts, slow references, and timm's own tools on them."""

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.optim import param_groups_layer_decay

from hf_transinv.models.cifar_resnet import CifarResNet, OptionAShortcut, checkpoint_filter_fn
from hf_transinv.models.wide_resnet import WideResNet

COUNTS = {
    "wrn10_1_cifar": 77_850,
    "wrn16_1_cifar": 175_066,
    "wrn16_2_cifar": 691_674,
    "wrn40_2_cifar": 2_243_546,
    "wrn28_10_cifar": 36_479_194,
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet56_cifar": 853_018,
}


def randomise_statistics(network, generator):
    """BatchNorm as after training, so that a forgotten or misplaced one shows in eval."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(module.num_features, generator=generator))
            module.bias.data.copy_(0.1 * torch.randn(module.num_features, generator=generator))


def images(size=32, batch=2, seed=0, dtype=torch.float32):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_count(name, count):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def batch_norm(x, norm):
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return x * scale.view(-1, 1, 1) + (norm.bias - norm.running_mean * scale).view(-1, 1, 1)


def reference_wide_resnet(network, x):
    """Zagoruyko and Komodakis' wide-resnet.lua, block by block: twice BN-ReLU-conv, shortcut after BN-ReLU."""
    x = F.conv2d(x, network.stem.conv.weight, padding=1)
    for index, stage in enumerate(network.stages):
        for number, block in enumerate(stage.blocks):
            stride = 2 if index > 0 and number == 0 else 1
            active = F.relu(batch_norm(x, block.norm1))
            out = F.conv2d(active, block.conv1.weight, stride=stride, padding=1)
            out = F.conv2d(F.relu(batch_norm(out, block.norm2)), block.conv2.weight, padding=1)
            changes = number == 0 and block.conv1.in_channels != block.conv1.out_channels
            x = out + (F.conv2d(active, block.downsample.conv.weight, stride=stride) if changes else x)
    pooled = F.relu(batch_norm(x, network.norm)).mean((2, 3))
    return pooled @ network.head.fc.weight[:, :, 0, 0].T + network.head.fc.bias


@pytest.mark.parametrize("name", ["wrn10_1_cifar", "wrn16_2_cifar"])
def test_wide_resnet_equals_reference(name):
    network = timm.create_model(name).double().eval()
    with torch.no_grad():
        randomise_statistics(network, torch.Generator().manual_seed(1))
        x = images(dtype=torch.float64)
        torch.testing.assert_close(network(x), reference_wide_resnet(network, x), rtol=1e-10, atol=1e-10)


def reference_cifar_resnet(network, x):
    """He et al., section 4.2, with the option A shortcut written as a loop over channels."""
    x = F.relu(batch_norm(F.conv2d(x, network.conv1.weight, padding=1), network.bn1))
    for index, stage in enumerate((network.layer1, network.layer2, network.layer3)):
        for number, block in enumerate(stage):
            stride = 2 if index > 0 and number == 0 else 1
            out = F.relu(batch_norm(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.bn1))
            out = batch_norm(F.conv2d(out, block.conv2.weight, padding=1), block.bn2)
            shortcut = torch.zeros_like(out)
            first = (out.shape[1] - x.shape[1]) // 2
            for channel in range(x.shape[1]):
                shortcut[:, first + channel] = x[:, channel, ::stride, ::stride]
            x = F.relu(out + shortcut)
    return x.mean((2, 3)) @ network.fc.weight.T + network.fc.bias


def test_cifar_resnet_equals_reference():
    network = timm.create_model("resnet20_cifar").double().eval()
    with torch.no_grad():
        randomise_statistics(network, torch.Generator().manual_seed(1))
        x = images(dtype=torch.float64)
        torch.testing.assert_close(network(x), reference_cifar_resnet(network, x), rtol=1e-10, atol=1e-10)


def test_option_a_shortcut_by_hand():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    out = OptionAShortcut(1, 3, stride=2)(x)
    assert out.shape == (1, 3, 2, 2)
    assert out[0, 1].tolist() == [[0.0, 2.0], [8.0, 10.0]]
    assert out[0, 0].abs().sum() == 0 and out[0, 2].abs().sum() == 0
    assert not list(OptionAShortcut(1, 3, stride=2).parameters())


@pytest.mark.parametrize("name", ["wrn10_1_cifar", "resnet20_cifar"])
def test_initialisation(name):
    torch.manual_seed(0)
    network = timm.create_model(name)
    head = network.get_classifier()
    for module in network.modules():
        if module is head:
            bound = network.num_features**-0.5
            assert 0.8 * bound < module.weight.abs().max() <= bound
            assert 0 < module.bias.abs().max() <= bound
        elif isinstance(module, torch.nn.Conv2d):
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.25)
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert torch.all(module.weight == 1) and torch.all(module.bias == 0)


@pytest.mark.parametrize("name", ["wrn16_1_cifar", "resnet20_cifar"])
def test_head_api(name):
    network = timm.create_model(name, num_classes=7).eval()
    x = images()
    features = network.forward_features(x)
    assert features.shape == (2, network.num_features, 8, 8)
    pooled = network.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    assert torch.equal(network(x), network.forward_head(features))
    assert network.get_classifier().weight.shape[0] == 7
    network.reset_classifier(3)
    assert network.num_classes == 3 and network(x).shape == (2, 3)
    network.reset_classifier(0)
    assert network(x).shape == (2, 64)
    network.reset_classifier(4, global_pool="max")
    assert network(x).shape == (2, 4)


@pytest.mark.parametrize("name", ["wrn16_2_cifar", "resnet20_cifar"])
def test_features_only(name):
    network = timm.create_model(name, features_only=True)
    features = network(images())
    assert network.feature_info.reduction() == [1, 1, 2, 4]
    assert [f.shape[1] for f in features] == network.feature_info.channels()
    assert [f.shape[2] for f in features] == [32, 32, 16, 8]


def test_forward_intermediates_counts_the_stem_and_three_stages():
    network = timm.create_model("wrn10_1_cifar").eval()
    x = images()
    last, every = network.forward_intermediates(x)
    assert [tuple(f.shape[1:]) for f in every] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert torch.equal(last, network.forward_features(x))
    two = network.forward_intermediates(x, indices=2, intermediates_only=True)
    assert len(two) == 2 and torch.equal(two[0], every[2]) and torch.equal(two[1], every[3])
    assert network.prune_intermediate_layers(2) == [2, 3]


@pytest.mark.parametrize("name", ["wrn10_1_cifar", "resnet20_cifar"])
def test_gradient_checkpointing_changes_nothing(name):
    network = timm.create_model(name).train()
    gradients = []
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(images()).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("name", ["wrn10_1_cifar", "resnet20_cifar"])
def test_timm_tools(name):
    network = timm.create_model(name)
    assert name in timm.list_models("*_cifar")
    config = resolve_model_data_config(network)
    assert config["input_size"] == (3, 32, 32) and config["crop_pct"] == 1.0
    groups = param_groups_layer_decay(network, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert len({group["lr_scale"] for group in groups}) > 2
    one_channel = timm.create_model(name, in_chans=1)
    assert one_channel(torch.rand(1, 1, 32, 32)).shape == (1, 10)


def test_impossible_depths_are_refused():
    with pytest.raises(ValueError, match="6 n \\+ 4"):
        WideResNet(depth=15)
    with pytest.raises(ValueError, match="6 n \\+ 2"):
        CifarResNet(depth=21)


def as_third_party(network):
    """Keys of pytorch_resnet_cifar10: `linear` for `fc`, and no batch counters, as in its published files."""
    state = {key: value.clone() for key, value in network.state_dict().items() if "num_batches" not in key}
    return {key.replace("fc.", "linear."): value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_third_party_file_loads_through_timm(tmp_path, prefix):
    network = timm.create_model("resnet20_cifar").eval()
    randomise_statistics(network, torch.Generator().manual_seed(2))
    path = tmp_path / "model.safetensors"
    save_file({prefix + key: value for key, value in as_third_party(network).items()}, path)
    overlay = {"file": str(path), "num_classes": 10}
    loaded = timm.create_model("resnet20_cifar", pretrained=True, num_classes=10, pretrained_cfg_overlay=overlay)
    assert torch.equal(loaded.eval()(images()), network(images()))


def test_filter_unwraps_and_leaves_our_own_keys():
    network = timm.create_model("resnet20_cifar")
    wrapped = {"state_dict": {f"module.{key}": value for key, value in as_third_party(network).items()}, "epoch": 3}
    filtered = checkpoint_filter_fn(wrapped, network)
    own = network.state_dict()
    assert set(filtered) == {key for key in own if "num_batches" not in key}
    assert all(torch.equal(filtered[key], own[key]) for key in filtered)
    assert checkpoint_filter_fn(own, network).keys() == own.keys()
