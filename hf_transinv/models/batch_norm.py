"""BatchNorm's momentum as PyTorch means it, for networks that were built with TensorFlow's number.

PyTorch: running <- (1 - m) running + m batch. TensorFlow: running <- m running + (1 - m) batch. transformers hands
the numbers of its MobileNetV1 (0.9997), MobileNetV2 (0.997) and EfficientNet (0.99) to PyTorch as they are: in
training, one batch would overwrite the statistics of the checkpoint.
"""

import logging

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_logger = logging.getLogger(__name__)

_LARGEST = 0.5  # of PyTorch's own: beyond it a batch would count for more than all that came before


def correct_momentum(network: nn.Module, name: str) -> None:
    """Turn momenta that can only be TensorFlow's into PyTorch's, in place, and say so.

    Args:
        network: any.
        name: what to call it.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    layers = [layer for layer in layers if layer.momentum is not None and _LARGEST < layer.momentum < 1]
    if not layers:
        return
    found = sorted({layer.momentum for layer in layers})
    for layer in layers:
        layer.momentum = round(1 - layer.momentum, 12)
    _logger.warning(
        "%s: BatchNorm momentum %s is TensorFlow's convention; %d layers train with 1 - m: %s",
        name,
        ", ".join(f"{momentum:g}" for momentum in found),
        len(layers),
        ", ".join(f"{1 - momentum:g}" for momentum in found),
    )
