"""ResNet-20 ... ResNet-110 for 32 px images, with parameterless shortcuts, registered with timm.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, section
4.2: depth = 6 n + 2 layers, a 3x3 stem of 16 channels and three stages of n basic blocks with 16, 32 and 64 channels
(strides 1, 2, 2). Shortcuts are option A: where the shape changes they take every other pixel and pad the channels
with zeros, half of them on either side. This follows Y. Idelbayev's pytorch_resnet_cifar10, whose published weights
`checkpoint_filter_fn` converts.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

__all__ = ["CifarResNet", "OptionAShortcut", "checkpoint_filter_fn"]


class OptionAShortcut(nn.Module):
    """Every `stride`-th pixel, zero channels on both sides: [B, in, H, W] -> [B, out, H/stride, W/stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        missing = out_channels - in_channels
        self.padding = (missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.padding))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameterless shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, **factory: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(out_channels, **factory)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(out_channels, **factory)
        self.act2 = nn.ReLU(inplace=True)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else OptionAShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """ResNet-`depth` for CIFAR, with the feature and head API of timm's models.

    Args:
        depth: layers, 6 n + 2.
        num_classes: outputs; 0: no classifier.
        in_chans: channels of the input.
        global_pool: timm's name of the pooling before the classifier.
        drop_rate: of dropout before the classifier.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: there is no such depth.
    """

    global_pool: Any  # timm's SelectAdaptivePool2d
    fc: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"CifarResNet got depth {depth}; expected 6 n + 2 with n >= 1: 20, 32, 44, 56, 110 ...")
        factory = {"device": device, "dtype": dtype}
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.grad_checkpointing = False
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(16, **factory)
        self.act1 = nn.ReLU(inplace=True)
        self.feature_info = [{"num_chs": 16, "reduction": 1, "module": "act1"}]
        channels = 16
        for index, (out_channels, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
            blocks = nn.Sequential()
            for block in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels, out_channels, stride if block == 0 else 1, **factory))
                channels = out_channels
            self.add_module(f"layer{index}", blocks)
            info = {"num_chs": channels, "reduction": 2 ** (index - 1), "module": f"layer{index}"}
            self.feature_info.append(info)
        self.num_features = self.head_hidden_size = channels
        self.global_pool, self.fc = create_classifier(channels, num_classes, pool_type=global_pool, **factory)
        self.drop = nn.Dropout(drop_rate)
        self.init_weights()

    def init_weights(self) -> None:
        """Convolutions from N(0, 2 / (k^2 out)), variance; the classifier keeps PyTorch's initialisation."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Timm's grouping of parameters for layer decay."""
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes the blocks in the backward pass instead of storing their activations."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last layer by a new one for `num_classes` classes (0: none); the pooling too if given."""
        self.num_classes = num_classes
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        weight = self.conv1.weight
        self.global_pool, self.fc = create_classifier(
            self.num_features, num_classes, pool_type=pool_type, device=weight.device, dtype=weight.dtype
        )
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, 64, H/4, W/4]."""
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = checkpoint_seq(stage, x) if self.grad_checkpointing and self.training else stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """[B, 64, h, w] -> [B, 64] if `pre_logits`, else [B, num_classes]."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Converts the weights of the pytorch_resnet_cifar10 family; weights of this network pass unchanged.

    Unwraps `{"state_dict": ...}`, removes the `module.` of DataParallel, and renames `linear` to `fc`.

    Args:
        state_dict: of a checkpoint.
        model: not used; timm passes it.
    """
    weights = state_dict.get("state_dict", state_dict)
    renamed = {}
    for stored, value in weights.items():
        key = stored.removeprefix("module.")
        renamed["fc." + key.removeprefix("linear.") if key.startswith("linear.") else key] = value
    return renamed


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        # ImageNet's, as the published weights of pytorch_resnet_cifar10 were trained with them.
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "conv1",
        "classifier": "fc",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "resnet20_cifar": _cfg(),
        "resnet32_cifar": _cfg(),
        "resnet44_cifar": _cfg(),
        "resnet56_cifar": _cfg(),
        "resnet110_cifar": _cfg(),
    }
)


def _create_cifar_resnet(variant: str, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(
        CifarResNet,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3)},
        **kwargs,
    )


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20."""
    return _create_cifar_resnet("resnet20_cifar", pretrained, **{"depth": 20, **kwargs})


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32."""
    return _create_cifar_resnet("resnet32_cifar", pretrained, **{"depth": 32, **kwargs})


@register_model
def resnet44_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44."""
    return _create_cifar_resnet("resnet44_cifar", pretrained, **{"depth": 44, **kwargs})


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56."""
    return _create_cifar_resnet("resnet56_cifar", pretrained, **{"depth": 56, **kwargs})


@register_model
def resnet110_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-110."""
    return _create_cifar_resnet("resnet110_cifar", pretrained, **{"depth": 110, **kwargs})
