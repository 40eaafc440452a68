"""Choosing: which teacher's augmentation (r), whether to augment at all (q), which primitive (p), and their gradients.

The objective is linear in the probabilities. With o the objective of one image under one choice,

    O_k = q_k sum_i p_ki E[o | k, i] + (1 - q_k) E[o | k, clean],          O = sum_k r_k O_k,

so its gradient needs the mean objective of each choice and nothing else.

`expectation`: each choice of each teacher gets its share of the batch (a stratum), its objective is averaged and
weighted by its probability: unbiased, and one primitive an image. `gumbel`: the paper's Gumbel-Softmax relaxation
(section 3.1; Jang et al., ICLR 2017): every primitive on every image, biased.

Which symbol is which: p `p` [L, K], q `q` [L], r `r` [L]; a choice is 0 .. K-1 for a primitive and K for "clean".
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Choices(NamedTuple):
    """Which augmentation model and which primitive each image gets, all on the CPU.

    Attributes:
        model: number of the augmentation model, int64 [B].
        choice: number of the primitive, int64 [B]; K means the image stays as it is.
        share: weight of the image in the mean over its stratum, [B]; summed over a stratum it is 1.
    """

    model: Tensor
    choice: Tensor
    share: Tensor


@dataclass(frozen=True)
class Draws:
    """Everything random about how one batch is augmented: with the images and phi it fixes the result.

    Attributes:
        z: latents, [B, M].
        model: which teacher's augmentation model deforms the image, [B], kept on the CPU (it steers, it is not
            computed with, so that choosing never waits for the device).
        choice: which primitive, [B]; K means the image stays as it is. On the CPU.
        noise: standard normal noise for the rows that need it, [n, C, H, W].
        noise_row: each image's row in `noise`, -1 where it has none, [B], on the CPU.
        share: weight of an image in the mean over its stratum, [B]; summed over a stratum it is 1 (on the CPU).
        gumbel: Gumbel noise for p [B, K] and logistic noise for q [B], for the relaxed choice only.
        gumbel_r: Gumbel noise for r, [L], one draw a turn, for the relaxed choice only.
        seed: of the corruptions among the primitives, None without any. Cut into parts, each part has noise of its
            own: a batch in two parts is equal to the whole in distribution only.
    """

    z: Tensor
    model: Tensor
    choice: Tensor
    noise: Tensor
    noise_row: Tensor
    share: Tensor
    gumbel: tuple[Tensor, Tensor] | None = None
    gumbel_r: Tensor | None = None
    seed: int | None = None

    def __getitem__(self, rows: slice) -> "Draws":
        """The draws of some of the images: a process's, or a micro-batch's."""
        return replace(
            self,
            z=self.z[rows],
            model=self.model[rows],
            choice=self.choice[rows],
            noise_row=self.noise_row[rows],
            share=self.share[rows],
            gumbel=None if self.gumbel is None else (self.gumbel[0][rows], self.gumbel[1][rows]),
            seed=None if self.seed is None else self.seed + (rows.start or 0),
        )

    def generator(self, device: torch.device) -> torch.Generator | None:
        """What the corruptions draw from, beside the images."""
        return None if self.seed is None else torch.Generator(device).manual_seed(self.seed)


def stratified_choices(batch_size: int, num_models: int, num_choices: int, generator: torch.Generator) -> Choices:
    """Give every (model, choice) an equal share of the batch, in random order.

    An image's share is 1 / (images in its stratum) where every stratum has an image. With fewer images than strata,
    as many strata are drawn as there are images, all equally likely, and the share is strata / batch: the weighted sum
    stays unbiased.
    """
    cells = num_models * num_choices
    order = torch.randperm(cells, generator=generator)
    cell = order[torch.arange(batch_size) % cells][torch.randperm(batch_size, generator=generator)]
    share = torch.bincount(cell, minlength=cells)[cell].float().reciprocal()
    if batch_size < cells:
        share = share * cells / batch_size
    return Choices(cell // num_choices, cell % num_choices, share)


def sampled_choices(batch_size: int, p: Tensor, q: Tensor, r: Tensor, generator: torch.Generator) -> Choices:
    """Draw for every image its model k ~ r, whether it is deformed at all ~ q_k, and its primitive i ~ p_k.

    The paper draws the model once per iteration. One draw per image has the same expectation and less variance. Every
    image has the share 1 / B.
    """
    probabilities = torch.cat([q.unsqueeze(1) * p, 1 - q.unsqueeze(1)], dim=1)
    model = torch.multinomial(r, batch_size, replacement=True, generator=generator)
    choice = torch.multinomial(probabilities[model], 1, generator=generator).squeeze(1)
    return Choices(model, choice, torch.full((batch_size,), 1 / batch_size))


def expected_objectives(
    objective: Tensor, model: Tensor, choice: Tensor, share: Tensor, p: Tensor, q: Tensor
) -> Tensor:
    """O_k of each augmentation model from a stratified batch: [B] -> [L], differentiable in objective, p and q."""
    probability = torch.cat([q.unsqueeze(1) * p, 1 - q.unsqueeze(1)], dim=1)[model, choice]
    return mean_by_model(objective * probability, model, share, len(q))


def mean_by_model(values: Tensor, model: Tensor, share: Tensor, num_models: int) -> Tensor:
    """sum_b share_b values_b over the images of each model: [B] -> [L]."""
    return torch.zeros(num_models, device=values.device, dtype=values.dtype).index_add(0, model, values * share)


def sample_gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise -log(-log u)."""
    return -(-torch.rand(shape, generator=generator).clamp(1e-10, 1 - 1e-7).log()).log()


def relaxed_categorical(log_p: Tensor, gumbel: Tensor, temperature: float, hard: bool) -> Tensor:
    """A relaxed one-hot sample g of Categorical(p), [..., K]; `hard` puts the one-hot vector in the forward pass and
    keeps the relaxed one's gradient (straight through).
    """
    soft = torch.softmax((log_p + gumbel) / temperature, dim=-1)
    if not hard:
        return soft
    return F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype) + soft - soft.detach()


def relaxed_bernoulli(logit: Tensor, logistic: Tensor, temperature: float, hard: bool) -> Tensor:
    """A relaxed sample b of Bernoulli(sigmoid(logit)), in (0, 1); `hard` as in `relaxed_categorical`."""
    soft = torch.sigmoid((logit + logistic) / temperature)
    return (soft > 0.5).to(soft.dtype) + soft - soft.detach() if hard else soft


def entropy(probabilities: Tensor) -> Tensor:
    """-sum p ln p over the last axis, in nats."""
    # A probability that has become 0 would have an infinite gradient, and NaN behind the softmax.
    return torch.special.entr(probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)).sum(-1)
