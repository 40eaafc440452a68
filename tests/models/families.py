"""A tiny random network of every family of image classifiers that transformers has, with its own processor."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name as class_named
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

NAMES = ["ant", "bee", "cat"]
SIDE = 64

TRANSFORMERS_4 = transformers.__version__.startswith("4.")

_ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
_VIT = {"image_size": SIDE, "patch_size": 16, **_ENCODER}
_SWIN = {"image_size": SIDE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
_VISION = {"vision_config": _VIT, "text_config": {**_ENCODER, "vocab_size": 99}}
_MLP = {key: value for key, value in _VIT.items() if key != "intermediate_size"}

TINY: dict[str, dict[str, Any]] = {
    "beit": _VIT,
    "bit": {**_STAGES, "num_groups": 4},
    "clip": _VISION,
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "convnextv2": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "cvt": {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]},
    "data2vec-vision": _VIT,
    "deit": _VIT,
    "dinov2": _MLP,
    "dinov2_with_registers": _MLP,
    "donut-swin": _SWIN,
    "efficientnet": {
        "image_size": SIDE,
        **{"kernel_sizes": [3], "in_channels": [32], "out_channels": [8], "strides": [1], "num_block_repeats": [1]},
        **{"expand_ratios": [1], "hidden_dim": 1280, "width_coefficient": 1.0, "depth_coefficient": 1.0},
    },
    "focalnet": {"image_size": SIDE, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "hgnet_v2": {
        **{"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "stem_channels": [3, 8, 8]},
        **{"stage_in_channels": [8, 8], "stage_mid_channels": [8, 8], "stage_out_channels": [8, 8]},
        **{"stage_num_blocks": [1, 1], "stage_downsample": [False, True], "stage_light_block": [False, False]},
        **{"stage_kernel_size": [3, 3], "stage_numb_of_layers": [1, 1], "stage_downsample_strides": [2, 2]},
    },
    "hiera": {
        **{"image_size": [SIDE, SIDE], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "patch_size": [3, 3]},
        **{"patch_stride": [4, 4], "patch_padding": [1, 1], "num_query_pool": 1, "masked_unit_size": [4, 4]},
    },
    "ijepa": _VIT,
    "levit": {
        **{"image_size": SIDE, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]},
        **{"key_dim": [8, 8, 8], "mlp_ratio": [2, 2, 2], "attention_ratio": [2, 2, 2]},
    },
    "metaclip_2": _VISION,
    "mobilenet_v1": {"image_size": SIDE, "depth_multiplier": 0.25},
    "mobilenet_v2": {"image_size": SIDE, "depth_multiplier": 0.35},
    "mobilevit": {
        **{"image_size": SIDE, "hidden_sizes": [16] * 3, "neck_hidden_sizes": [8] * 4 + [16] * 3},
        **{"num_attention_heads": 2},
    },
    "mobilevitv2": {"image_size": SIDE, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1]},
    "perceiver": {
        **{"num_latents": 4, "d_latents": 16, "num_blocks": 1, "num_self_attends_per_block": 1, "image_size": SIDE},
        **{"num_self_attention_heads": 2, "num_cross_attention_heads": 1},
    },
    "poolformer": {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]},
    "pp_lcnet": {"scale": 0.25},
    "pvt": {
        **{"image_size": SIDE, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 1, 2]},
    },
    "pvt_v2": {
        **{"image_size": SIDE, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 1, 2]},
    },
    "regnet": {**_STAGES, "groups_width": 8},
    "resnet": _STAGES,
    "segformer": {"hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 1, 2]},
    "siglip": _VISION,
    "swiftformer": {"image_size": SIDE, "embed_dims": [8, 8, 8, 16], "depths": [1, 1, 1, 1]},
    "swin": _SWIN,
    "swinv2": _SWIN,
    "textnet": {
        **{"conv_layer_kernel_sizes": [[[3, 3]]] * 4, "conv_layer_strides": [[2]] * 4},
        **{"hidden_sizes": [8, 8, 8, 8, 16], "stem_out_channels": 8, "image_size": [SIDE, SIDE]},
    },
    "vit": _VIT,
    "vit_msn": _VIT,
}
"""Model type: its configuration."""

NOT_FOLLOWED = {
    "dinat": "needs the package natten",
    "efficientformer": "of transformers 4 alone",
    "imagegpt": "reads colour clusters, no pixels",
    "nat": "of transformers 4 alone",
    "shieldgemma2": "reads a prompt beside the picture",
    "siglip2": "reads patches and a mask",
    "timm_wrapper": "is timm's, and opened as such",
    "van": "of transformers 4 alone",
    "vit_hybrid": "of transformers 4 alone",
}
"""Model type: why it is no network for this table."""

ARCHITECTURES = {
    model_type: names if isinstance(names, tuple) else (names,)
    for model_type, names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items()
}
"""Model type: its networks, of all that the installed transformers knows."""


def processors_of(model_type: str) -> list[str]:
    """Classes of image processors for a model type, that which transformers itself takes first."""
    found = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or ()
    if isinstance(found, dict):
        return [found[kind] for kind in ("torchvision", "pil") if kind in found]
    return [name for name in found if name]  # of transformers 4: the slow one, the fast one


def own_processor(model_type: str) -> str:
    """The class that transformers itself takes for a model type; those without one say it in their checkpoint."""
    return next(iter(processors_of(model_type)), "BitImageProcessor")


def kind_of(name: str) -> str:
    """A class of image processors without what computes: BitImageProcessorPil and BitImageProcessorFast alike."""
    return name.removesuffix("Pil").removesuffix("Fast")


def by_torchvision(name: str) -> str:
    """The class that computes with torchvision, of one that has that name since transformers 5."""
    return f"{name}Fast" if TRANSFORMERS_4 and class_named(f"{name}Fast") else name


def tiny_processor(name: str, **fields: Any) -> Any:
    """A processor of that class whose pictures are 64 px where its defaults are hundreds, `fields` besides."""
    own = class_named(name)
    default = own if hasattr(own, "size") else own()  # transformers 4's slow ones say it only when built
    size, sides = getattr(default, "size", None), {}
    if isinstance(size, dict):
        sides["size"] = {key: SIDE for key in size}
    if getattr(default, "crop_size", None) is not None:
        sides["crop_size"] = {"height": SIDE, "width": SIDE}
    if hasattr(default, "resize_short"):
        sides["resize_short"] = SIDE + 4
    return own(**{**sides, **fields})


def _awake(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights, so that pictures get through to the logits: what these networks are born with loses them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter[0].numel() > 1:
            scale = (2 / parameter[0].numel()) ** 0.5
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the average of what it sees
    network.train()
    for _ in range(3):
        network(torch.rand(8, 3, SIDE, SIDE, generator=generator))
    return network.eval()


def tiny_folder(model_type: str, folder: Path, processor: Any = None, architecture: str | None = None) -> Path:
    """A checkpoint of transformers: a tiny random network of that type (the first, or another) with its processor."""
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    config = AutoConfig.for_model(model_type, **TINY[model_type], **labels, num_labels=len(NAMES))
    config.architectures = [architecture or ARCHITECTURES[model_type][0]]
    _awake(AutoModelForImageClassification.from_config(config)).save_pretrained(folder)
    (processor or tiny_processor(own_processor(model_type))).save_pretrained(folder)
    return folder
