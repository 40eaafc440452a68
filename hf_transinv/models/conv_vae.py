"""Variational autoencoders as augmentations use them: images in [0, 1] <-> latents of about unit variance.

`Autoencoder` is that door. `ConvVAE` is a small convolutional one, trained by `recipes/train_vae.py`; the large ones
of diffusers stand in `models/diffusers_vae.py`. `open_autoencoder` opens either by name, and never a pickle.

    e = (mean of q(h | x) - shift) * scale,    x^ = decoder(e / scale + shift)

A folder of ours holds `config.json` (the architecture, scale) and `model.safetensors`; it appears whole or not at all.
"""

import itertools
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_transinv.errors import InputError
from hf_transinv.files import plain_state, put_in_place, read_json
from hf_transinv.models.autoencoder import Autoencoder
from hf_transinv.models.param_budget import check_sizes, no_larger_than, stored_elements

_MARK = "hf_transinv_vae"
_FORMAT = 1


@dataclass
class VAEConfig:
    """The small convolutional VAE.

    Attributes:
        vae_latent_channels: C; at two halvings a 32 px image has 64 C latent numbers for its 3072.
        vae_width: channels of the first layer; each halving doubles them.
        vae_halvings: how often the sides are halved; they must be divisible by 2 to that power.
        vae_pixel_sd: standard deviation of a pixel given the latents, in (0, 1]: what the reconstruction may be off
            by before it weighs as much as the latents' own cost. Smaller: sharper pictures, wilder latents.
    """

    vae_latent_channels: int = 8
    vae_width: int = 32
    vae_halvings: int = 2
    vae_pixel_sd: float = 0.05

    def __post_init__(self) -> None:
        for name in ("vae_latent_channels", "vae_width", "vae_halvings"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, given {getattr(self, name)}")
        if not 0 < self.vae_pixel_sd <= 1:
            raise InputError(f"vae_pixel_sd must be in (0, 1], given {self.vae_pixel_sd}")


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions. No normalisation: an image's picture depends on no other image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.conv1(self.act(x))))


class ConvVAE(Autoencoder):
    """A small VAE for small images: strided convolutions down, nearest-neighbour upsampling up.

    Args:
        config: its size.

    Attributes:
        latent_scale: 1 / (standard deviation of the mean latents over images); 1 until training has ended.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.vae_latent_channels
        widths = [config.vae_width * 2**level for level in range(config.vae_halvings + 1)]
        encoder: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), ResidualBlock(widths[0])]
        for narrow, wide in itertools.pairwise(widths):
            encoder += [nn.SiLU(), nn.Conv2d(narrow, wide, 4, stride=2, padding=1), ResidualBlock(wide)]
        encoder += [nn.SiLU(), nn.Conv2d(widths[-1], 2 * self.latent_channels, 1)]
        decoder: list[nn.Module] = [nn.Conv2d(self.latent_channels, widths[-1], 3, padding=1)]
        for wide, narrow in itertools.pairwise(reversed(widths)):
            # Nearest upsampling and a convolution: a transposed convolution leaves a chequerboard.
            decoder += [ResidualBlock(wide), nn.SiLU(), nn.Upsample(scale_factor=2)]
            decoder += [nn.Conv2d(wide, narrow, 3, padding=1)]
        decoder += [ResidualBlock(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 3, 3, padding=1)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.register_buffer("latent_scale", torch.ones(()))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of an image.

        Raises:
            InputError: a side cannot be halved as often as it must.
        """
        factor = 2**self.config.vae_halvings
        if height % factor or width % factor:
            raise InputError(
                f"a VAE of vae_halvings {self.config.vae_halvings} takes sides divisible by {factor}, not "
                f"{height} x {width}; give another image_size or fewer vae_halvings"
            )
        return self.latent_channels, height // factor, width // factor

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] in [0, 1] -> mean and log-variance of q(h | x), both [B, C, h, w]."""
        self.latent_shape(*images.shape[-2:])
        mean, log_variance = self.encoder(2 * images - 1).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)  # exp of it stays finite, whatever an early step does

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One sample of the latents with its reconstruction, for training.

        Args:
            images: [B, 3, H, W] in [0, 1].
            noise: standard normal, [B, C, h, w].

        Returns:
            x^ [B, 3, H, W], and mean and log-variance of q(h | x), both [B, C, h, w].
        """
        mean, log_variance = self.posterior(images)
        return self._pictures(mean + (0.5 * log_variance).exp() * noise), mean, log_variance

    def _pictures(self, h: Tensor) -> Tensor:
        return (self.decoder(h) + 1) / 2

    def encode(self, images: Tensor) -> Tensor:
        return self.posterior(images)[0] * self.latent_scale

    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        pictures = self._pictures(latents / self.latent_scale)
        if tuple(pictures.shape[-2:]) != tuple(size):
            raise InputError(f"these latents are of {tuple(pictures.shape[-2:])} images, not of {tuple(size)} ones")
        return pictures


def save_vae(vae: ConvVAE, folder: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Write config.json and model.safetensors; the folder appears whole or not at all.

    Args:
        vae: left as it is.
        folder: where; it must not exist, or be empty, or hold a VAE of ours, which is replaced.
        extra: JSON values to stand in config.json beside the architecture.

    Raises:
        InputError: the folder holds something else, or the disk is full.
    """
    folder = Path(folder)
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not is_vae_folder(folder):
        raise InputError(f"{folder} exists and is not a VAE of this library; nothing was written. Give another folder")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir(parents=True)
        content = {_MARK: _FORMAT, "architecture": asdict(vae.config), **(extra or {})}
        (partial / "config.json").write_text(json.dumps(content, indent=2) + "\n")
        save_file(plain_state(vae), partial / "model.safetensors")
        # safetensors writes for the owner alone, whatever the umask.
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
        put_in_place(partial, folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} could not be written ({error}). Is the disk full?") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def is_vae_folder(folder: str | Path) -> bool:
    """Whether a folder holds a VAE of ours."""
    try:
        return _MARK in read_json(Path(folder) / "config.json")
    except (OSError, ValueError):
        return False


def load_vae(folder: str | Path) -> ConvVAE:
    """A VAE of ours, in eval mode, on the CPU.

    Raises:
        InputError: the folder holds none, or a damaged one.
    """
    folder = Path(folder)
    try:
        content = read_json(folder / "config.json")
        if content.get(_MARK) != _FORMAT:
            raise InputError(
                f"{folder} holds no VAE of this library in format {_FORMAT}; recipes/train_vae.py makes one"
            )
        check_sizes(content["architecture"], str(folder))
        with no_larger_than(stored_elements(folder), str(folder)):
            vae = ConvVAE(VAEConfig(**content["architecture"]))
        vae.load_state_dict(load_file(folder / "model.safetensors"))
    except InputError:
        raise
    except (OSError, KeyError, TypeError, AttributeError, RuntimeError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} holds no VAE that can be loaded: {error}") from error
    return vae.eval()


def open_autoencoder(name: str) -> Autoencoder:
    """The door: a folder of ours, or an AutoencoderKL of diffusers (Hub id or folder), in eval mode, on the CPU.

    Raises:
        InputError: it cannot be had; the message says why.
    """
    if is_vae_folder(name):
        return load_vae(name)
    from hf_transinv.models.diffusers_vae import open_diffusers

    return open_diffusers(name)
