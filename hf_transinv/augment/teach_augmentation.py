"""The augmentation model of TeachAugment (Suzuki, CVPR 2022): two networks, a colour and then a geometric one.

    A(x) = x' warped by I + g_geometric 0.5 (sigmoid(m(z, y)) - 0.5)
    x'   = wave(valid (scale x + shift))                                  pixel by pixel
    scale = 1 + g_colour 0.8 (sigmoid(s(x, y) + s'(z, y)) - 0.5),         in [0.6, 1.4]
    shift =     g_colour     (sigmoid(b(x, y) + b'(z, y)) - 0.5),         in [-0.5, 0.5]

z ~ N(0, I_128) is shared by both, y is the label (one-hot). m and (s', b') are networks of the latent
(128 + classes -> 512 -> 512 -> 6 or 2), s and b a network of each pixel (normalised RGB -> 128 -> 128 -> 3 + 3). Every
hidden layer is followed by BatchNorm without running statistics, LeakyReLU 0.2 and dropout 0.8, which stays awake
whoever's turn it is: it is part of what is random about A. g is a relaxed Bernoulli gate (temperature 0.05) with a
logit a class. The last layers start at zero, so A starts at the identity. `valid` leaves out rows and columns that
are black all through (the padding of a crop); wave is the triangle wave into [0, 1].

Which symbol is which: phi all parameters; m `matrix`, s' and b' `tone`, s and b `pixel_*`, g `gate`.

BatchNorm couples the images that are normalised together (a group): micro-batches and processes have statistics of
their own and equal the whole batch in distribution only, unless they are cut between groups.

Four fifths of the pixel network's channels are dropped, image by image. Only those that are kept are computed; the
statistics that BatchNorm needs of all channels follow from mean and covariance of the layer's input, since the mean
of w.h is w.E[h] and its variance w.Cov[h].w. The result is that of the whole network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transinv.augment.ops import into_range, per_image, warp_affine
from hf_transinv.augment.selection import relaxed_bernoulli
from hf_transinv.errors import InputError

LATENT_DIM = 128
LATENT_WIDTH = 4 * LATENT_DIM
PIXEL_WIDTH = 128
GEOMETRIC_RANGE = 0.5
"""Width of the range of an affine entry: +-0.25, half an image being 1."""
SCALE_RANGE = 0.8
TEMPERATURE = 0.05
DROPOUT = 0.8
SLOPE = 0.2
EPSILON = 1e-5
"""Added to BatchNorm's variances, as in torch."""


@dataclass(frozen=True)
class TeachAugmentDraws:
    """What is random about one batch: with the images, the labels and phi it fixes the result.

    Attributes:
        z: latents, [B, 128].
        gates: standard logistic noise of the geometric and the colour gate, [B, 2].
        kept: units that dropout leaves, of the hidden layers of `matrix` (0, 1) and of `tone` (2, 3), [B, 4, 512].
        channels: indices of the channels that dropout leaves in the pixel network's two hidden layers, [B, 2, k]; an
            image that keeps fewer than k is filled up with others.
        alive: 1 where `channels` is kept, 0 where it fills up, [B, 2, k].
    """

    z: Tensor
    gates: Tensor
    kept: Tensor
    channels: Tensor
    alive: Tensor

    def __getitem__(self, rows: slice | Tensor) -> "TeachAugmentDraws":
        """The draws of some of the images."""
        return TeachAugmentDraws(*(values[rows] for values in self._fields()))

    def to(self, device: torch.device) -> "TeachAugmentDraws":
        """The same on another device."""
        return TeachAugmentDraws(*(values.to(device, non_blocking=True) for values in self._fields()))

    def _fields(self) -> tuple[Tensor, ...]:
        return self.z, self.gates, self.kept, self.channels, self.alive


class Augmented(NamedTuple):
    """A(x) and how it came about.

    Attributes:
        images: [B, 3, H, W] in [0, 1].
        coloured: before they were warped, [B, 3, H, W].
        magnitudes: mean absolute change over the batch of an affine entry, of the scale and of the shift, before the
            gates; [3], detached.
    """

    images: Tensor
    coloured: Tensor
    magnitudes: Tensor


class TeachAugmentation(nn.Module):
    """A_phi.

    Args:
        num_classes: of the labels.
        mean: a channel, of pixels in [0, 1]: the pixel network sees (x - mean) / std. One number or three.
        std: likewise.
    """

    mean: Tensor
    std: Tensor
    magnitudes: Tensor

    def __init__(self, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if num_classes < 2 or not {len(mean), len(std)} <= {1, 3} or min(std) <= 0:
            raise InputError(
                f"TeachAugment's networks need at least 2 classes, a mean and a positive std of 1 or 3 channels; "
                f"given {num_classes}, {list(mean)}, {list(std)}"
            )
        self.num_classes = num_classes
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).expand(3).clone(), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).expand(3).clone(), persistent=False)
        # What the last turn of the augmentation looked like, for people: no part of the function.
        self.register_buffer("magnitudes", torch.zeros(3))
        self.matrix = _latent_network(LATENT_DIM + num_classes, 6)
        self.tone = _latent_network(LATENT_DIM + num_classes, 2)
        self.pixel = nn.ParameterDict(
            {
                "context": _initialised(PIXEL_WIDTH, num_classes),
                **_hidden_layer(0, 3, PIXEL_WIDTH),
                **_hidden_layer(1, PIXEL_WIDTH, PIXEL_WIDTH),
                "last": torch.zeros(6, PIXEL_WIDTH),
            }
        )
        self.gate = nn.ParameterDict({"geometric": torch.zeros(num_classes), "colour": torch.zeros(num_classes)})

    def phi(self) -> dict[str, Tensor]:
        """All parameters by name, as a stack of one: [1, ...] each."""
        return {name: parameter.unsqueeze(0) for name, parameter in self.named_parameters()}

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> TeachAugmentDraws:
        """Draw for images of this shape (B, 3, H, W); the generator and the answer are on the CPU."""
        batch = shape[0]
        z = torch.randn(batch, LATENT_DIM, generator=generator)
        gates = torch.rand(batch, 2, generator=generator).clamp(1e-7, 1 - 1e-7).logit()
        kept = torch.rand(batch, 4, LATENT_WIDTH, generator=generator) >= DROPOUT
        pixel = torch.rand(batch, 2, PIXEL_WIDTH, generator=generator) >= DROPOUT
        most = max(1, int(pixel.sum(-1).max()))
        alive, channels = pixel.to(torch.uint8).sort(dim=-1, descending=True, stable=True)
        return TeachAugmentDraws(z, gates, kept, channels[..., :most].contiguous(), alive[..., :most].float())

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        draws: TeachAugmentDraws,
        phi: Mapping[str, Tensor] | None = None,
    ) -> Augmented:
        """Augment as drawn.

        Args:
            images: [B, 3, H, W] in [0, 1].
            labels: class indices, [B].
            draws: of these images.
            phi: parameters to use instead of the own ones, [G, ...] each: the batch is cut into G groups of equal
                size, one after another, each with its parameters and with BatchNorm statistics of its own.
        """
        phi = self.phi() if phi is None else phi
        draws = draws.to(images.device)
        # Float32 also under autocast: eight bits of mantissa are too few for pixels and for BatchNorm's moments.
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            draws = TeachAugmentDraws(*(x.to(images.dtype) if x.is_floating_point() else x for x in draws._fields()))
            group = torch.arange(len(phi["pixel.last"]), device=images.device)
            group = group.repeat_interleave(len(images) // len(group))
            scale, shift = self._colour(phi, images, labels, group, draws)
            matrix = self._matrix(phi, labels, draws)
            gates = [
                relaxed_bernoulli(phi[f"gate.{name}"][group, labels], draws.gates[:, index], TEMPERATURE, hard=False)
                for index, name in enumerate(("geometric", "colour"))
            ]
            geometric, colour = per_image(gates[0])[:, 0], per_image(gates[1])
            coloured = recolour(images, 1 + colour * scale, colour * shift)
            identity = torch.eye(2, 3, device=images.device, dtype=images.dtype)
            warped = warp_affine(coloured, identity + geometric * matrix)
            with torch.no_grad():
                magnitudes = torch.stack([values.abs().mean() for values in (matrix, scale, shift)])
        return Augmented(warped, coloured, magnitudes)

    def _matrix(self, phi: Mapping[str, Tensor], labels: Tensor, draws: TeachAugmentDraws) -> Tensor:
        """Change of the affine matrix before its gate, [B, 2, 3], each entry in +-0.25."""
        answer = latent_network(phi, "matrix", self._context(labels, draws), draws.kept[:, :2])
        return (GEOMETRIC_RANGE * (answer.sigmoid() - 0.5)).view(-1, 2, 3)

    def _colour(
        self, phi: Mapping[str, Tensor], images: Tensor, labels: Tensor, group: Tensor, draws: TeachAugmentDraws
    ) -> tuple[Tensor, Tensor]:
        """Change of scale (+-0.4) and shift (+-0.5) of each pixel before their gate, [B, 3, H, W] each."""
        tone = latent_network(phi, "tone", self._context(labels, draws), draws.kept[:, 2:])
        mean, std = (values.to(images.dtype).view(3, 1) for values in (self.mean, self.std))
        pixels = (images.flatten(2) - mean) / std
        answer = pixel_network(phi, pixels, labels, group, draws.channels, draws.alive)
        answer = answer.view(len(images), 2, 3, *images.shape[2:]) + tone.view(-1, 2, 1, 1, 1)
        scale, shift = (answer.sigmoid() - 0.5).unbind(1)
        return SCALE_RANGE * scale, shift

    def _context(self, labels: Tensor, draws: TeachAugmentDraws) -> Tensor:
        """(one-hot label, z), [B, classes + 128]."""
        return torch.cat([F.one_hot(labels, self.num_classes).to(draws.z.dtype), draws.z], dim=1)


def recolour(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """wave(valid (scale x + shift)), all [B, 3, H, W]; valid is 0 in rows and columns that are black all through."""
    bright = images.detach().sum(1, keepdim=True) != 0
    valid = bright.any(-1, keepdim=True) & bright.any(-2, keepdim=True)
    moved = (scale * images + shift) * valid
    # Folding rounds; what lies in [0, 1] is to stay as it is, to the bit.
    return torch.where((moved >= 0) & (moved <= 1), moved, into_range(moved, "fold"))


def latent_network(phi: Mapping[str, Tensor], name: str, inputs: Tensor, kept: Tensor) -> Tensor:
    """A network of the latent: inputs [B, I] and kept units [B, 2, 512] -> [B, O], G groups of equal size."""
    last = phi[f"{name}.last"]
    hidden = inputs.view(len(last), -1, inputs.shape[1])
    for layer in range(2):
        hidden = hidden @ phi[f"{name}.weight{layer}"].mT
        variance, mean = torch.var_mean(hidden, dim=1, keepdim=True, correction=0)
        gain = phi[f"{name}.gain{layer}"].unsqueeze(1) * (variance + EPSILON).rsqrt()
        hidden = F.leaky_relu((hidden - mean) * gain + phi[f"{name}.bias{layer}"].unsqueeze(1), SLOPE)
        hidden = hidden * (kept[:, layer].view(hidden.shape) / (1 - DROPOUT))
    return (hidden @ last.mT).flatten(0, 1)


def pixel_network(
    phi: Mapping[str, Tensor], pixels: Tensor, labels: Tensor, group: Tensor, channels: Tensor, alive: Tensor
) -> Tensor:
    """The network of each pixel: [B, 3, N] -> [B, 6, N], the kept channels alone.

    BatchNorm and the factor of dropout are folded into each layer's weights (LeakyReLU is positively homogeneous).

    Args:
        phi: parameters by name, [G, ...].
        pixels: normalised, [B, 3, N].
        labels: class indices, [B].
        group: each image's group, [B], in equal numbers and ascending.
        channels: kept channels of the two hidden layers, [B, 2, k].
        alive: 1 where they are kept indeed, [B, 2, k].
    """
    groups, rows = len(phi["pixel.last"]), group.unsqueeze(1)
    context = phi["pixel.context"].mT[group, labels]
    hidden, inputs = pixels, torch.arange(3, device=pixels.device).expand(len(pixels), 3)
    for layer in range(2):
        weight = phi[f"pixel.weight{layer}"]
        # hidden - hidden.mean(2), written so that the way back needs two passes over all pixels less.
        mean = hidden.sum(2) / hidden.shape[2]
        hidden = hidden + (-mean).unsqueeze(2)
        # Mean answer of each image in all channels, [G, n, O]; then the variance within images and between them.
        answer = _unpacked(mean, inputs, weight.shape[2]).view(groups, -1, weight.shape[2]) @ weight.mT
        if layer == 0:
            answer = answer + context.view(answer.shape)
        covariance = _mean_covariance(hidden, inputs, groups, weight.shape[2])
        within = ((weight @ covariance) * weight).sum(2)
        between, centre = torch.var_mean(answer, dim=1, correction=0, keepdim=True)
        gain = phi[f"pixel.gain{layer}"] * (within + between[:, 0] + EPSILON).rsqrt()
        offset = gain.unsqueeze(1) * (answer - centre) + phi[f"pixel.bias{layer}"].unsqueeze(1)
        outputs, factor = channels[:, layer], alive[:, layer] / (1 - DROPOUT)
        scaled = weight[rows.unsqueeze(2), outputs.unsqueeze(2), inputs.unsqueeze(1)]
        scaled = scaled * (gain[rows, outputs] * factor).unsqueeze(2)
        offset = offset.flatten(0, 1).gather(1, outputs) * factor
        hidden = F.leaky_relu(torch.baddbmm(offset.unsqueeze(2), scaled, hidden), SLOPE, inplace=True)
        inputs = outputs
    return phi["pixel.last"].mT[rows, inputs].mT @ hidden


def _unpacked(values: Tensor, channels: Tensor, width: int) -> Tensor:
    """Values [B, k] of some channels [B, k] in their places among all of them, [B, width]."""
    return values.new_zeros(len(values), width).scatter_add(1, channels, values)


def _mean_covariance(centred: Tensor, channels: Tensor, groups: int, width: int) -> Tensor:
    """Mean over a group of the images' own covariances, of packed channels: [B, k, N] -> [G, width, width]."""
    covariance = centred @ centred.mT / centred.shape[2]
    place = channels.unsqueeze(2) * width + channels.unsqueeze(1)
    # Image by image, so that no two numbers are added to one place: their order would be the device's to choose.
    wide = _unpacked(covariance.flatten(1), place.flatten(1), width * width)
    return wide.view(groups, -1, width, width).mean(1)


def _initialised(outputs: int, inputs: int) -> Tensor:
    weight = torch.empty(outputs, inputs)
    return nn.init.kaiming_normal_(weight, SLOPE, "fan_out")


def _hidden_layer(layer: int, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {
        f"weight{layer}": _initialised(outputs, inputs),
        f"gain{layer}": torch.ones(outputs),
        f"bias{layer}": torch.zeros(outputs),
    }


def _latent_network(inputs: int, outputs: int) -> nn.ParameterDict:
    return nn.ParameterDict(
        {
            **_hidden_layer(0, inputs, LATENT_WIDTH),
            **_hidden_layer(1, LATENT_WIDTH, LATENT_WIDTH),
            "last": torch.zeros(outputs, LATENT_WIDTH),
        }
    )
