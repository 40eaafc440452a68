"""What a forward pass costs, as model cards of timm say it."""

import copy

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_transinv.models.classifier import Classifier


@torch.no_grad()
def giga_multiply_adds(classifier: Classifier) -> float:
    """GMACs of one image: the multiply-adds of convolutions, matrix products and attention, in 1e9.

    A copy of the network is run on the CPU, not compiled, and with attention as matrix products, which the counter
    knows on all devices.

    Args:
        classifier: not changed.
    """
    copied = copy.deepcopy(classifier).cpu().float().eval()
    image = torch.zeros(1, 3, *classifier.input_size)
    counter = FlopCounterMode(display=False)
    with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), counter:
        copied(image)
    return counter.get_total_flops() / 2 / 1e9
