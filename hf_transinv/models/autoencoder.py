"""The interface of an autoencoder to an augmentation: images in [0, 1] <-> latents of about unit variance."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Autoencoder(nn.Module, ABC):
    """Encodes images to latents and back, both ways differentiable.

    Attributes:
        latent_channels: C of the latents.
    """

    latent_channels: int

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] -> the mean latents [B, C, h, w], of about unit variance over images."""

    @abstractmethod
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents [B, C, h, w] -> images [B, 3, *size], roughly in [0, 1]; the caller clamps them."""
