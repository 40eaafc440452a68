"""The augmentation model of TeachAugment (Suzuki, CVPR 2022): a colour network, then a geometric one.

    A(x) = x' warped by I + g_geometric 0.5 (sigmoid(m(z, y)) - 0.5)
    x'   = wave(valid (scale x + shift))                                  pixel by pixel
    scale = 1 + g_colour 0.8 (sigmoid(s(x, y) + s'(z, y)) - 0.5),         in [0.6, 1.4]
    shift =     g_colour     (sigmoid(b(x, y) + b'(z, y)) - 0.5),         in [-0.5, 0.5]

z ~ N(0, I_128) is shared by both networks; y is the one-hot label. m and (s', b') are networks of the latent
(128 + classes -> 512 -> 512 -> 6 or 2). s and b are a network of each pixel (normalised RGB -> 128 -> 128 -> 3 + 3).
Every hidden layer is followed by BatchNorm without running statistics, LeakyReLU 0.2 and dropout 0.8. Dropout is never
switched off, as it is part of the randomness of A. g is a relaxed Bernoulli gate (temperature 0.05) with one logit per
class. The last layers start at zero, so A starts at the identity. `valid` excludes rows and columns that are entirely
black, such as the padding of a crop. wave is the triangle wave into [0, 1].

Symbols: phi, all parameters; m, `matrix`; s' and b', `tone`; s and b, `pixel_*`; g, `gate`.

BatchNorm couples the images that are normalised together (a group). Micro-batches and processes have their own
statistics, so they equal the whole batch only in distribution, unless the batch is cut between groups.

Dropout drops four fifths of the pixel network's channels, for each image anew. Only the kept channels are computed.
The statistics of all channels, which BatchNorm needs, follow from the mean and covariance of the layer's input: the
mean of w.h is w.E[h], its variance w.Cov[h].w. The result equals that of the whole network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transinv.augment.ops import identity, into_range, per_image, warp_affine
from hf_transinv.augment.sampled import Sampled
from hf_transinv.augment.selection import relaxed_bernoulli
from hf_transinv.errors import InputError

LATENT_DIM = 128
LATENT_WIDTH = 4 * LATENT_DIM
PIXEL_WIDTH = 128
GEOMETRIC_RANGE = 0.5
"""Width of the range of an affine entry: +-0.25, in halves of the image."""
SCALE_RANGE = 0.8
TEMPERATURE = 0.05
DROPOUT = 0.8
SLOPE = 0.2
EPSILON = 1e-5
"""Added to the variances in BatchNorm, as in torch."""


@dataclass(frozen=True)
class TeachAugmentDraws(Sampled):
    """Everything random about one batch: with the images, the labels and phi it determines the result.

    Attributes:
        z: latents, [B, 128].
        gates: standard logistic noise of the geometric and the colour gate, [B, 2].
        kept: units that dropout keeps, of the hidden layers of `matrix` (0, 1) and of `tone` (2, 3), bool [B, 4, 512].
        channels: indices of the channels that dropout keeps in the pixel network's two hidden layers, [B, 2, k]; the
            rows of images that keep fewer than k are filled up with dropped channels.
        alive: 1 for kept channels, 0 for the others in `channels`, [B, 2, k].
    """

    z: Tensor
    gates: Tensor
    kept: Tensor
    channels: Tensor
    alive: Tensor


class Augmented(NamedTuple):
    """A(x) and its intermediate results.

    Attributes:
        images: A(x), [B, 3, H, W] in [0, 1].
        coloured: x', before the warp, [B, 3, H, W].
        magnitudes: mean absolute change, before the gates, of an affine entry, of the scale and of the shift; [3],
            detached.
    """

    images: Tensor
    coloured: Tensor
    magnitudes: Tensor


class TeachAugmentation(nn.Module):
    """A_phi.

    Args:
        num_classes: number of classes of the labels, at least 2.
        mean: of pixels in [0, 1], one number or one per channel. The pixel network sees (x - mean) / std.
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
        # Of the last turn of the augmentation, for the records only.
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
        """Draw for images of shape (B, 3, H, W); the generator and the draws are on the CPU."""
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
            phi: parameters to use instead of the module's own, [G, ...] each: the batch is cut into G groups of equal
                size, in order, each with its own parameters and BatchNorm statistics.
        """
        phi = self.phi() if phi is None else phi
        draws = draws.to(images.device)
        # Float32, also under autocast: a mantissa of eight bits is too short for pixels and for BatchNorm's moments.
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            z, logistic, alive = (values.to(images.dtype) for values in (draws.z, draws.gates, draws.alive))
            draws = replace(draws, z=z, gates=logistic, alive=alive)
            group = torch.arange(len(phi["pixel.last"]), device=images.device)
            group = group.repeat_interleave(len(images) // len(group))
            context = torch.cat([F.one_hot(labels, self.num_classes).to(z.dtype), z], dim=1)  # [B, classes + 128]
            scale, shift = self._colour(phi, images, labels, context, group, draws)
            matrix = self._matrix(phi, context, draws)
            gates = [
                relaxed_bernoulli(phi[f"gate.{name}"][group, labels], draws.gates[:, index], TEMPERATURE, hard=False)
                for index, name in enumerate(("geometric", "colour"))
            ]
            geometric, colour = per_image(gates[0])[:, 0], per_image(gates[1])
            coloured = recolour(images, 1 + colour * scale, colour * shift)
            warped = warp_affine(coloured, identity(images.device, images.dtype) + geometric * matrix)
            with torch.no_grad():
                magnitudes = torch.stack([values.abs().mean() for values in (matrix, scale, shift)])
        return Augmented(warped, coloured, magnitudes)

    def _matrix(self, phi: Mapping[str, Tensor], context: Tensor, draws: TeachAugmentDraws) -> Tensor:
        """The change of the affine matrix before its gate, [B, 2, 3], each entry in +-0.25."""
        answer = latent_network(phi, "matrix", context, draws.kept[:, :2])
        return (GEOMETRIC_RANGE * (answer.sigmoid() - 0.5)).view(-1, 2, 3)

    def _colour(
        self,
        phi: Mapping[str, Tensor],
        images: Tensor,
        labels: Tensor,
        context: Tensor,
        group: Tensor,
        draws: TeachAugmentDraws,
    ) -> tuple[Tensor, Tensor]:
        """The change of scale (+-0.4) and shift (+-0.5) of each pixel before the gate, [B, 3, H, W] each."""
        tone = latent_network(phi, "tone", context, draws.kept[:, 2:])
        mean, std = (values.to(images.dtype).view(3, 1) for values in (self.mean, self.std))
        pixels = (images.flatten(2) - mean) / std
        answer = pixel_network(phi, pixels, labels, group, draws.channels, draws.alive)
        answer = answer.view(len(images), 2, 3, *images.shape[2:]) + tone.view(-1, 2, 1, 1, 1)
        scale, shift = (answer.sigmoid() - 0.5).unbind(1)
        return SCALE_RANGE * scale, shift


def recolour(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """wave(valid (scale x + shift)), all [B, 3, H, W]; valid is 0 in rows and columns that are entirely black."""
    bright = images.detach().sum(1, keepdim=True) != 0
    valid = bright.any(-1, keepdim=True) & bright.any(-2, keepdim=True)
    moved = (scale * images + shift) * valid
    # Folding rounds; values in [0, 1] must keep every bit.
    return torch.where((moved >= 0) & (moved <= 1), moved, into_range(moved, "fold"))


def latent_network(phi: Mapping[str, Tensor], name: str, inputs: Tensor, kept: Tensor) -> Tensor:
    """A network of the latent, for G groups of equal size: inputs [B, I] and kept units [B, 2, 512] -> [B, O]."""
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
    """The network of each pixel: [B, 3, N] -> [B, 6, N], computed on the kept channels only.

    BatchNorm and the factor of dropout are folded into each layer's weights, as LeakyReLU is positively homogeneous.

    Args:
        phi: parameters by name, [G, ...].
        pixels: normalised, [B, 3, N].
        labels: class indices, [B].
        group: number of each image's group, [B], ascending, all groups of equal size.
        channels: channels of the two hidden layers to compute, [B, 2, k].
        alive: 1 for those that dropout keeps, else 0, [B, 2, k].
    """
    groups, rows = len(phi["pixel.last"]), group.unsqueeze(1)
    context = phi["pixel.context"].mT[group, labels]
    hidden, inputs = pixels, torch.arange(3, device=pixels.device).expand(len(pixels), 3)
    for layer in range(2):
        weight = phi[f"pixel.weight{layer}"]
        # hidden - hidden.mean(2), in a form whose backward pass needs two passes over all pixels fewer.
        mean = hidden.sum(2) / hidden.shape[2]
        hidden = hidden + (-mean).unsqueeze(2)
        # The mean output of each image in all channels, [G, n, O]; then the variance within and between images.
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
    """Values [B, k] at the given channels [B, k] of all `width`, 0 elsewhere: [B, width]."""
    return values.new_zeros(len(values), width).scatter_add(1, channels, values)


def _mean_covariance(centred: Tensor, channels: Tensor, groups: int, width: int) -> Tensor:
    """The mean over each group of the images' covariances, of packed channels: [B, k, N] -> [G, width, width]."""
    covariance = centred @ centred.mT / centred.shape[2]
    place = channels.unsqueeze(2) * width + channels.unsqueeze(1)
    # One matrix per image, so that no two values are added to one entry: the order of such sums is not deterministic.
    wide = _unpacked(covariance.flatten(1), place.flatten(1), width * width)
    return wide.view(groups, -1, width, width).mean(1)


def _initialised(outputs: int, inputs: int) -> Tensor:
    return nn.init.kaiming_normal_(torch.empty(outputs, inputs), SLOPE, "fan_out")


def _hidden_layer(layer: int, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {
        f"weight{layer}": _initialised(outputs, inputs),
        f"gain{layer}": torch.ones(outputs),
        f"bias{layer}": torch.zeros(outputs),
    }


def _latent_network(inputs: int, outputs: int) -> nn.ParameterDict:
    hidden = _hidden_layer(0, inputs, LATENT_WIDTH) | _hidden_layer(1, LATENT_WIDTH, LATENT_WIDTH)
    return nn.ParameterDict(hidden | {"last": torch.zeros(outputs, LATENT_WIDTH)})
