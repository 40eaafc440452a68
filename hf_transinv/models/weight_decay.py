"""Which parameters of a network do not decay, beside biases and normalisation: position embeddings and class tokens.

timm's networks say so by `no_weight_decay`, those of transformers do not: there the counterparts of what timm leaves
out are told by their names.
"""

from fnmatch import fnmatchcase
from typing import Any

_OF_TRANSFORMERS = (
    *("*cls_token", "*distillation_token", "*register_tokens", "*mask_token", "*position_embedding*"),
    *("*relative_position_bias*", "*continuous_position_bias_mlp*", "*attention_biases", "*logit_scale"),
    *("*.grn.weight", "*.grn.bias"),  # of ConvNeXt V2: normalisation, with four dimensions there and one in timm
)


def undecayed(network: Any) -> set[str]:
    """Names of such parameters, or patterns of names, as timm's groups of parameters take them.

    Args:
        network: of timm or transformers.
    """
    if hasattr(network, "no_weight_decay"):
        return set(network.no_weight_decay())
    if hasattr(network, "get_classifier"):  # one of timm's that names none
        return set()
    names = [name for name, _ in network.named_parameters()]
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in _OF_TRANSFORMERS)}
