"""AutoencoderKL of diffusers, an optional extra: `pip install hf_transinv[vae]`.

Its images are in [-1, 1] and its latents are brought to unit variance by (h - shift_factor) * scaling_factor, as
its config says (Rombach et al., CVPR 2022, appendix G; the shift came later and is 0 where the config has none).
Small images are enlarged before the encoder, which has seen photographs, and shrunk after the decoder.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hf_transinv.errors import InputError
from hf_transinv.models.autoencoder import Autoencoder
from hf_transinv.models.classifier import resize
from hf_transinv.resolve.hub_errors import client_says

# 32 px would leave 4 x 4 latents at the usual eightfold reduction. The value is ours and was not tuned.
SHORTEST_SIDE = 128


class DiffusersVAE(Autoencoder):
    """An AutoencoderKL as an `Autoencoder`, always in float32, as VAEs with `force_upcast` need it.

    Args:
        network: diffusers.AutoencoderKL.
        shortest_side: images whose shorter side has fewer pixels are enlarged to this many.
    """

    network: Any  # diffusers.AutoencoderKL, of an optional dependency

    def __init__(self, network: nn.Module, shortest_side: int = SHORTEST_SIDE) -> None:
        super().__init__()
        self.network = network.float()
        config: Any = network.config
        self.latent_channels = config.latent_channels
        self.scale = float(config.scaling_factor)
        self.shift = float(config.shift_factor or 0.0)
        self.reduction = 2 ** (len(config.block_out_channels) - 1)
        self.shortest_side = shortest_side

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) that the network sees: at least `shortest_side`, both divisible by its reduction."""
        enlarged = max(1.0, self.shortest_side / min(height, width))
        rows, columns = (math.ceil(side * enlarged / self.reduction) * self.reduction for side in (height, width))
        return rows, columns

    def encode(self, images: Tensor) -> Tensor:
        images = resize(images, self.working_size(*images.shape[-2:]), "bicubic")
        mean = self.network.encode(2 * images - 1).latent_dist.mean
        return (mean - self.shift) * self.scale

    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        images = self.network.decode(latents / self.scale + self.shift).sample
        return resize((images + 1) / 2, size, "bilinear")


def open_diffusers(name: str) -> DiffusersVAE:
    """An AutoencoderKL by Hub id or folder, in eval mode, on the CPU; from safetensors alone.

    Args:
        name: such as "stabilityai/sd-vae-ft-mse"; "ID:SUBFOLDER" where it is a part of a pipeline.

    Raises:
        InputError: diffusers is not installed, the weights cannot be loaded, or the scale of the latents is missing.
    """
    try:
        from diffusers import AutoencoderKL
    except (ImportError, RuntimeError) as error:  # what its lazy modules raise for a dependency that is missing
        raise InputError(
            f"VAE {name!r} is no folder of this library's own, so it needs diffusers, which cannot be imported "
            f"({client_says(error)}): pip install hf_transinv[vae]. Or train a small VAE: recipes/train_vae.py"
        ) from error
    repository, _, subfolder = name.partition(":")
    options: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
    try:
        network = AutoencoderKL.from_pretrained(repository, use_safetensors=True, torch_dtype=torch.float32, **options)
    except Exception as error:  # a damaged folder surfaces anywhere in diffusers, as nearly any type
        raise InputError(
            f"VAE {name!r} cannot be opened as an AutoencoderKL with safetensors weights: {client_says(error)}. "
            "Expected a Hub id (or ID:SUBFOLDER), a diffusers folder, or a folder of recipes/train_vae.py"
        ) from error
    if not isinstance(network.config.scaling_factor, int | float) or not network.config.scaling_factor > 0:
        raise InputError(
            f"The config.json of VAE {name!r} has scaling_factor {network.config.scaling_factor!r}; expected a number "
            "above 0"
        )
    return DiffusersVAE(network).eval()
