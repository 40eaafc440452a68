"""Variational autoencoders as augmentations use them: images in [0, 1] <-> latents of about unit variance.

`ConvVAE` is a small convolutional one, trained by `recipes/train_vae.py`. The large ones of diffusers are in
`models/diffusers_vae.py`. `open_autoencoder` opens either by name, from safetensors alone.

    e = (mean of q(h | x) - shift) * scale,    x^ = decoder(e / scale + shift)

A folder of this library holds `config.json` (the architecture) and `model.safetensors` (weights and scale). It is
written as a whole or not at all.
"""

import itertools
import json
import shutil
from dataclasses import asdict, dataclass, fields
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
_MOST_HALVINGS = 16  # of an image of 65,536 px


@dataclass
class VAEConfig:
    """The small convolutional VAE.

    Attributes:
        vae_latent_channels: C; at two halvings a 32 px image has 64 C latent numbers for its 3072.
        vae_width: channels of the first layer; each halving doubles them.
        vae_halvings: how often the sides are halved; they must be divisible by 2 to that power.
        vae_pixel_sd: standard deviation of a pixel given the latents, in (0, 1]. It weighs the reconstruction against
            the latents' own cost: smaller values give sharper images and less regular latents.
    """

    vae_latent_channels: int = 8
    vae_width: int = 32
    vae_halvings: int = 2
    vae_pixel_sd: float = 0.05

    def __post_init__(self) -> None:
        for name in ("vae_latent_channels", "vae_width", "vae_halvings"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, given {getattr(self, name)}")
        if self.vae_halvings > _MOST_HALVINGS:
            raise InputError(f"vae_halvings must be at most {_MOST_HALVINGS}, given {self.vae_halvings}")
        if not 0 < self.vae_pixel_sd <= 1:
            raise InputError(f"vae_pixel_sd must be in (0, 1], given {self.vae_pixel_sd}")


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions. No normalisation: images of a batch do not depend on each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)
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

    latent_scale: Tensor

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
            # Nearest upsampling and a convolution: a transposed convolution leaves a checkerboard pattern.
            decoder += [ResidualBlock(wide), nn.SiLU(), nn.Upsample(scale_factor=2)]
            decoder += [nn.Conv2d(wide, narrow, 3, padding=1)]
        decoder += [ResidualBlock(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 3, 3, padding=1)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.register_buffer("latent_scale", torch.ones(()))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of an image's latents.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.

        Raises:
            InputError: a side cannot be halved often enough.
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
        return mean, log_variance.clamp(-20, 10)  # so that its exp stays finite early in training

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One sample of the latents with its reconstruction, for training.

        Args:
            images: [B, 3, H, W] in [0, 1].
            noise: standard normal, [B, C, h, w].

        Returns:
            x^ [B, 3, H, W], and mean and log-variance of q(h | x), both [B, C, h, w].
        """
        mean, log_variance = self.posterior(images)
        return self._reconstruction(mean + (0.5 * log_variance).exp() * noise), mean, log_variance

    def _reconstruction(self, h: Tensor) -> Tensor:
        return (self.decoder(h) + 1) / 2

    def encode(self, images: Tensor) -> Tensor:
        return self.posterior(images)[0] * self.latent_scale

    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        images = self._reconstruction(latents / self.latent_scale)
        if tuple(images.shape[-2:]) != tuple(size):
            raise InputError(f"these latents are of {tuple(images.shape[-2:])} images, not of {tuple(size)} ones")
        return images


def save_vae(vae: ConvVAE, folder: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Writes config.json and model.safetensors; the folder appears as a whole or not at all.

    Args:
        vae: left as it is.
        folder: must not exist, be empty, or hold a VAE of this library, which is replaced.
        extra: JSON values to add to config.json beside the architecture.

    Returns:
        The folder.

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
    """Whether a folder holds a VAE of this library."""
    try:
        return _MARK in read_json(Path(folder) / "config.json")
    except (OSError, ValueError):
        return False


def load_vae(folder: str | Path) -> ConvVAE:
    """A VAE of this library, in eval mode, on the CPU.

    Raises:
        InputError: the folder holds none, or a damaged one.
    """
    folder = Path(folder)
    config = _read_config(folder)
    try:
        stored, weights = stored_elements(folder), load_file(folder / "model.safetensors")
    except Exception as error:  # safetensors raises nearly any type on a damaged file
        raise _damaged(folder, error) from error
    with no_larger_than(stored, str(folder)), torch.device("meta"):
        ConvVAE(config)  # counted without memory
    vae = ConvVAE(config)
    try:
        vae.load_state_dict(weights)
    except RuntimeError as error:  # tensors that are missing, unknown or of another shape
        raise _damaged(folder, error) from error
    return vae.eval()


def _read_config(folder: Path) -> VAEConfig:
    """The architecture in a config.json.

    Raises:
        InputError: there is none, or a field of it is missing, unknown or not of its type.
    """
    try:
        content = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    if content.get(_MARK) != _FORMAT:
        raise InputError(f"{folder} holds no VAE of this library in format {_FORMAT}; recipes/train_vae.py makes one")
    architecture, names = content.get("architecture"), {field.name for field in fields(VAEConfig)}
    if not isinstance(architecture, dict) or not architecture.keys() <= names:
        raise _damaged(folder, f"the architecture in config.json is {architecture!r}; expected {', '.join(names)}")
    check_sizes(architecture, str(folder))
    for name, value in architecture.items():
        is_right = isinstance(value, int | float) if name == "vae_pixel_sd" else type(value) is int
        if not is_right:
            raise _damaged(folder, f"{name} in config.json is {value!r}; expected a number")
    return VAEConfig(**architecture)


def _damaged(folder: Path, what: object) -> InputError:
    return InputError(f"{folder} holds no VAE that can be loaded: {what}")


def open_autoencoder(name: str) -> Autoencoder:
    """Opens a folder of this library, or an AutoencoderKL of diffusers by Hub id or folder.

    Args:
        name: see `diffusers_vae.open_diffusers` for those of diffusers.

    Returns:
        The autoencoder in eval mode, on the CPU.

    Raises:
        InputError: it cannot be opened; the message says why.
    """
    if is_vae_folder(name):
        return load_vae(name)
    from hf_transinv.models.diffusers_vae import open_diffusers

    return open_diffusers(name)
