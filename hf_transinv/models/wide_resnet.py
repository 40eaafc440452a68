"""WideResNet-d-k for 32 px images, pre-activation, registered with timm.

S. Zagoruyko and N. Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146. d = 6 n + 4 layers: a 3x3 stem of
16 channels, three stages of n basic blocks with 16 k, 32 k and 64 k channels (strides 1, 2, 2), a last normalisation,
a classifier. Symbols: d is `depth`, k is `width`. The network is timm's `ResNetV2` with the stem replaced, so
features, heads, layer decay and gradient checkpointing are timm's own. Departure from the paper: no dropout inside the
blocks. timm's `drop_path_rate` is available.
"""

from typing import Any

from timm.layers import BatchNormAct2d, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn

__all__ = ["WideResNet"]

_STEM_CHANNELS = 16


class WideResNet(ResNetV2):
    """WRN-d-k as a timm model.

    Args:
        depth: layers, 6 n + 4.
        width: factor of the channels.
        in_chans: channels of the input.
        device: of the parameters.
        dtype: of the parameters.
        **kwargs: of timm's `ResNetV2`.

    Raises:
        ValueError: there is no such depth.
    """

    def __init__(
        self, depth: int = 16, width: int = 1, in_chans: int = 3, device: Any = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"WideResNet got depth {depth}; expected 6 n + 4 with n >= 1: 10, 16, 22, 28, 34, 40 ...")
        channels = tuple(_STEM_CHANNELS * width * 2**stage for stage in range(3))
        super().__init__(
            layers=[(depth - 4) // 6] * 3,
            channels=channels,
            in_chans=in_chans,
            stem_chs=_STEM_CHANNELS,
            basic=True,
            bottle_ratio=1.0,
            norm_layer=kwargs.pop("norm_layer", BatchNormAct2d),
            conv_layer=create_conv2d,
            device=device,
            dtype=dtype,
            **kwargs,
        )
        # ResNetV2 always builds the 7x7, stride 2, max-pooled stem of ImageNet.
        self.stem = nn.Sequential()
        self.stem.add_module("conv", create_conv2d(in_chans, _STEM_CHANNELS, 3, device=device, dtype=dtype))
        for info, reduction in zip(self.feature_info, (1, 1, 2, 4), strict=True):
            info["reduction"] = reduction
        self.init_weights(zero_init_last=False)
        if isinstance(self.head.fc, nn.Conv2d):
            self.head.fc.reset_parameters()

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Timm's method; `indices` count the stem and the three stages, where ResNetV2 counts four stages."""
        return super().forward_intermediates(
            x, self._absolute(indices), norm, stop_early, output_fmt, intermediates_only
        )

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Timm's method; `indices` count the stem and the three stages, where ResNetV2 counts four stages."""
        return super().prune_intermediate_layers(self._absolute(indices), prune_norm, prune_head)

    def _absolute(self, indices: int | list[int] | None) -> list[int]:
        return feature_take_indices(len(self.feature_info), indices)[0]


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        # Per-channel mean and standard deviation of the 50,000 CIFAR-10 training images.
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "license": "apache-2.0",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "wrn10_1_cifar": _cfg(),
        "wrn16_1_cifar": _cfg(),
        "wrn16_2_cifar": _cfg(),
        "wrn28_2_cifar": _cfg(),
        "wrn28_10_cifar": _cfg(),
        "wrn40_1_cifar": _cfg(),
        "wrn40_2_cifar": _cfg(),
        "wrn40_4_cifar": _cfg(),
    }
)


def _create_wide_resnet(variant: str, pretrained: bool, **kwargs: Any) -> WideResNet:
    feature_cfg = {"flatten_sequential": True, "out_indices": (0, 1, 2, 3)}
    return build_model_with_cfg(WideResNet, variant, pretrained, feature_cfg=feature_cfg, **kwargs)


@register_model
def wrn10_1_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-10-1."""
    return _create_wide_resnet("wrn10_1_cifar", pretrained, **{"depth": 10, "width": 1, **kwargs})


@register_model
def wrn16_1_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-1."""
    return _create_wide_resnet("wrn16_1_cifar", pretrained, **{"depth": 16, "width": 1, **kwargs})


@register_model
def wrn16_2_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-2."""
    return _create_wide_resnet("wrn16_2_cifar", pretrained, **{"depth": 16, "width": 2, **kwargs})


@register_model
def wrn28_2_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-28-2."""
    return _create_wide_resnet("wrn28_2_cifar", pretrained, **{"depth": 28, "width": 2, **kwargs})


@register_model
def wrn28_10_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-28-10."""
    return _create_wide_resnet("wrn28_10_cifar", pretrained, **{"depth": 28, "width": 10, **kwargs})


@register_model
def wrn40_1_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-1."""
    return _create_wide_resnet("wrn40_1_cifar", pretrained, **{"depth": 40, "width": 1, **kwargs})


@register_model
def wrn40_2_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-2."""
    return _create_wide_resnet("wrn40_2_cifar", pretrained, **{"depth": 40, "width": 2, **kwargs})


@register_model
def wrn40_4_cifar(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-4."""
    return _create_wide_resnet("wrn40_4_cifar", pretrained, **{"depth": 40, "width": 4, **kwargs})
