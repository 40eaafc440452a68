"""The augmenters of HARD, learned: a latent z becomes a warp, or a displacement in the latent space of a VAE.

    x~ = A_phi(x, z),    z ~ N(0, I_M)

    affine        x sampled on the grid (I + Delta(z)) [u, v, 1]^T
    thin_plate    x warped by the thin-plate spline of k x k control points displaced by Delta(z)
    vae           x + decoder(e(x) + Delta(z, e(x))) - decoder(e(x)),  e the encoder's mean

Every Delta is range * tanh(network). The network (phi) has a last layer with small weights, so that training starts
near the identity, which is Delta = 0.

This is our reading of HARD (Nix, Burg, Sinz, 2023, arXiv:2305.14890). Its abstract names "simple spatial
transformations" and "a pretrained variational autoencoder". Ours is how z becomes a transformation. Ours is also the
difference of two decoded images for the VAE, which cancels the reconstruction error: it would otherwise be an unwanted
augmentation. With `hard_sees_image` a warp depends on the image too, as the VAE's displacement always does. It then
finds the transformation that is hard for this image; without, it finds one distribution for all images.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_transinv.augment import ops
from hf_transinv.augment.thin_plate import thin_plate_basis, warp_thin_plate
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.data.transfer import send
from hf_transinv.errors import InputError
from hf_transinv.models.autoencoder import Autoencoder
from hf_transinv.models.conv_vae import open_autoencoder

AUGMENTERS = ("affine", "thin_plate", "vae")


@dataclass
class AugmenterConfig:
    """The learned augmenter of HARD.

    Attributes:
        hard_augmenter: affine, thin_plate or vae.
        hard_vae: for vae: a folder of recipes/train_vae.py, or the Hub id of an AutoencoderKL of diffusers.
        hard_linear_range: affine: largest change of one of the four linear entries.
        hard_shift_range: affine: largest translation, in halves of the image.
        hard_control_points: thin_plate: k, for k x k control points, at least 2.
        hard_displacement_range: thin_plate: largest displacement of a control point along each axis, in halves of the
            image.
        hard_latent_range: vae: largest displacement of an entry of the latents, in their standard deviations.
        hard_sees_image: affine and thin_plate: whether the warp depends on the image as well as on z.
        hard_latent_dim: M, the length of z.
        hard_hidden_dim: width of the hidden layer.
        hard_init_scale: standard deviation of the last layer's weights; how far images move at the start.
        hard_padding: the pixels outside a warped image: zeros, border or reflection.
    """

    hard_augmenter: str = choice("affine", AUGMENTERS)
    hard_vae: str | None = None
    hard_linear_range: float = 0.25
    hard_shift_range: float = 0.25
    hard_control_points: int = 4
    hard_displacement_range: float = 0.2
    hard_latent_range: float = 1.0
    hard_sees_image: bool = False
    hard_latent_dim: int = 32
    hard_hidden_dim: int = 64
    hard_init_scale: float = 0.1
    hard_padding: str = choice("zeros", ("zeros", "border", "reflection"))

    def __post_init__(self) -> None:
        check_choices(self)
        if (self.hard_augmenter == "vae") != (self.hard_vae is not None):
            raise InputError("hard_augmenter vae needs hard_vae (a folder or a Hub id), and only that one takes it")
        if self.hard_control_points < 2:
            raise InputError(f"hard_control_points must be at least 2, given {self.hard_control_points}")
        if min(self.hard_latent_dim, self.hard_hidden_dim) < 1:
            raise InputError("hard_latent_dim and hard_hidden_dim must be at least 1")
        ranges = ("hard_linear_range", "hard_shift_range", "hard_displacement_range", "hard_latent_range")
        for name in (*ranges, "hard_init_scale"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be at least 0 and finite, given {getattr(self, name)}")


class Augmenter(nn.Module, ABC):
    """A learned augmentation with one latent z per image. z and phi determine the result.

    Args:
        latent_dim: M, the length of z.

    Attributes:
        kin: corruptions of the benchmark that it imitates, each with the reason.
    """

    kin: Mapping[str, str] = {}

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw z for a batch of shape (B, 3, H, W): [B, M], standard normal, on the CPU."""
        return torch.randn(shape[0], self.latent_dim, generator=generator)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment images.

        Computes in float32, also under autocast: a mantissa of eight bits is too short for pixels.

        Args:
            images: [B, 3, H, W] in [0, 1].
            draws: z, [B, M], on any device.

        Returns:
            [B, 3, H, W] in [0, 1].
        """
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            z = send(draws, images.device).to(images.dtype)
            return ops.into_range(self.augment(images, z))

    @abstractmethod
    def augment(self, images: Tensor, z: Tensor) -> Tensor:
        """The deformation itself, before the result is brought back into [0, 1].

        Args:
            images: [B, 3, H, W] in [0, 1].
            z: [B, M], of the dtype and on the device of the images.

        Returns:
            [B, 3, H, W].
        """


class Displacement(nn.Module):
    """Delta: z, and with `hard_sees_image` the image, -> P numbers within +-ranges.

    Args:
        config: of the augmenter.
        ranges: largest absolute value of each number, [P].
    """

    ranges: Tensor

    def __init__(self, config: AugmenterConfig, ranges: Tensor) -> None:
        super().__init__()
        self.features = None
        inputs, hidden = config.hard_latent_dim, config.hard_hidden_dim
        if config.hard_sees_image:
            # 4 x 4 positions are kept: a warp needs to know where things are.
            self.features = nn.Sequential(
                *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()),
                *(nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()),
                *(nn.AdaptiveAvgPool2d(4), nn.Flatten()),
            )
            inputs += 16 * 4 * 4
        self.hidden, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, len(ranges))
        nn.init.normal_(self.last.weight, std=config.hard_init_scale)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("ranges", ranges, persistent=False)

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        """Images [B, 3, H, W] and z [B, M] -> [B, P]."""
        inputs = z if self.features is None else torch.cat((z, self.features(images)), dim=1)
        return self.ranges * torch.tanh(self.last(torch.relu(self.hidden(inputs))))


class AffineWarp(Augmenter):
    """An affine map of the whole image.

    Args:
        config: of the augmenter.
    """

    def __init__(self, config: AugmenterConfig) -> None:
        super().__init__(config.hard_latent_dim)
        self.padding = config.hard_padding
        linear, shift = config.hard_linear_range, config.hard_shift_range
        self.displacement = Displacement(config, torch.tensor([linear, linear, shift] * 2))

    def augment(self, images: Tensor, z: Tensor) -> Tensor:
        change = self.displacement(images, z).view(-1, 2, 3)
        theta = ops.identity(images.device, images.dtype) + change
        return ops.warp_affine(images, theta, self.padding)


class ThinPlateWarp(Augmenter):
    """A smooth warp by k x k control points.

    Args:
        config: of the augmenter.
        image_size: (height, width) of the images, in pixels.
    """

    kin: Mapping[str, str] = {"elastic_transform": "it is a smooth warp"}
    basis: Tensor

    def __init__(self, config: AugmenterConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config.hard_latent_dim)
        self.padding, self.image_size = config.hard_padding, tuple(image_size)
        side = config.hard_control_points
        self.displacement = Displacement(config, torch.full((2 * side**2,), config.hard_displacement_range))
        self.register_buffer("basis", thin_plate_basis(side, *image_size).float(), persistent=False)

    def augment(self, images: Tensor, z: Tensor) -> Tensor:
        if tuple(images.shape[-2:]) != self.image_size:
            raise InputError(f"this warp is for images of {self.image_size} pixels, not {tuple(images.shape[-2:])}")
        moved = self.displacement(images, z)
        return warp_thin_plate(images, moved.view(len(images), -1, 2), self.basis, self.padding)


class LatentShift(Augmenter):
    """A displacement of the latents of a frozen VAE, decoded to images.

    Args:
        config: of the augmenter.
        autoencoder: frozen here. It moves between devices with this module, but is neither in its parameters nor in
            its state, since a checkpoint holds only what is learned.
    """

    def __init__(self, config: AugmenterConfig, autoencoder: Autoencoder) -> None:
        super().__init__(config.hard_latent_dim)
        channels, hidden = autoencoder.latent_channels, config.hard_hidden_dim
        self.range = config.hard_latent_range
        self.from_latents = nn.Conv2d(channels, hidden, 3, padding=1)
        self.from_z = nn.Linear(config.hard_latent_dim, hidden)
        self.last = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.normal_(self.last.weight, std=config.hard_init_scale / 3)  # nine taps add up
        nn.init.zeros_(self.last.get_parameter("bias"))
        self._frozen = (autoencoder.requires_grad_(False).eval(),)  # nn.Module does not register what is in a tuple

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LatentShift":
        """Move the frozen VAE as well, for `to`, `cuda` and the like."""
        self._frozen[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def autoencoder(self) -> Autoencoder:
        """The frozen VAE."""
        return self._frozen[0]

    def augment(self, images: Tensor, z: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        with torch.no_grad():
            latents = self.autoencoder.encode(images)
            still = self.autoencoder.decode(latents, (height, width))
        hidden = torch.relu(self.from_latents(latents) + self.from_z(z)[:, :, None, None])
        moved = latents + self.range * torch.tanh(self.last(hidden))
        return images + self.autoencoder.decode(moved, (height, width)) - still


def build_augmenter(config: AugmenterConfig, image_size: tuple[int, int]) -> Augmenter:
    """The augmenter that `config` names, for images of (height, width) pixels.

    Raises:
        InputError: the VAE cannot be opened.
    """
    if config.hard_vae is not None:  # as with "vae", and with nothing else
        return LatentShift(config, open_autoencoder(config.hard_vae))
    return AffineWarp(config) if config.hard_augmenter == "affine" else ThinPlateWarp(config, image_size)
