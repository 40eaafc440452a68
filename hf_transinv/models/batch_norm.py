"""BatchNorm's momentum in PyTorch's convention, for networks that were built with TensorFlow's.

PyTorch: running <- (1 - m) running + m batch. TensorFlow: running <- m running + (1 - m) batch. transformers passes
the momenta of its MobileNetV1 (0.9997), MobileNetV2 (0.997) and EfficientNet (0.99) to PyTorch unchanged. In training
one batch would then overwrite the statistics of the checkpoint.
"""

import logging

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_logger = logging.getLogger(__name__)

_LARGEST = 0.5  # in PyTorch's convention: beyond it a batch would count for more than all that came before


def correct_momentum(network: nn.Module, name: str) -> None:
    """Turns momenta that can only be TensorFlow's into PyTorch's, in place, with a warning.

    Args:
        network: any.
        name: what to call it in the warning.
    """
    layers = [
        (module, module.momentum)
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.momentum is not None and _LARGEST < module.momentum < 1
    ]
    if not layers:
        return
    found = sorted({momentum for _, momentum in layers})
    for layer, momentum in layers:
        layer.momentum = round(1 - momentum, 12)
    _logger.warning(
        "%s: BatchNorm momentum %s is TensorFlow's convention; %d layers train with 1 - m: %s",
        name,
        ", ".join(f"{momentum:g}" for momentum in found),
        len(layers),
        ", ".join(f"{1 - momentum:g}" for momentum in found),
    )
