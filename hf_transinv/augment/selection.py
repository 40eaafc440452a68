"""The choice of a teacher's augmentation (r), of augmenting at all (q) and of a primitive (p), and its gradients.

The objective is linear in the probabilities. With o the objective of one image under one choice,

    O_k = q_k sum_i p_ki E[o | k, i] + (1 - q_k) E[o | k, clean],          O = sum_k r_k O_k,

so its gradient needs only the mean objective of each choice. There are two estimators:

    expectation   Each choice of each teacher gets a share of the batch, a stratum. The mean objective of a stratum is
                  weighted by the probability of its choice. Unbiased, one primitive per image.
    gumbel        The paper's Gumbel-Softmax relaxation (section 3.1; Jang et al., ICLR 2017). Biased, every primitive
                  on every image.

Symbols: p `p` [L, K], q `q` [L], r `r` [L]. A choice is 0 .. K-1 for a primitive and K for "clean".
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.deal import Deal
from hf_transinv.data.transforms import CropDraws


class Selection(NamedTuple):
    """The probabilities and the multipliers.

    Attributes:
        p: of each model's primitives, [L, K]; rows sum to 1.
        q: of deforming an image at all, [L].
        r: of the models, [L]; it sums to 1.
        multipliers: lambda, [L, K], at least 0.
        excess: how far keep was beyond its bound in the turn before, as a share of the bound, [L, K].
    """

    p: Tensor
    q: Tensor
    r: Tensor
    multipliers: Tensor
    excess: Tensor


class Choices(NamedTuple):
    """Which augmentation model and which primitive each image gets, all on the CPU.

    Attributes:
        model: number of the augmentation model, int64 [B].
        choice: number of the primitive, int64 [B]; K means the image stays as it is.
        share: weight of the image in the mean over its stratum, [B]; the weights of a stratum sum to 1.
    """

    model: Tensor
    choice: Tensor
    share: Tensor


@dataclass(frozen=True)
class Draws:
    """Everything random about the augmentation of one batch: with the images and phi it determines the result.

    The fields that only select (model, choice, noise_row, share) are on the CPU, so that selecting never waits for the
    device.

    Attributes:
        z: latents, [B, M].
        model: number of the teacher's augmentation model that deforms the image, int64 [B].
        choice: number of the primitive, int64 [B]; K means the image stays as it is.
        noise: standard normal noise for the images that need it, [n, C, H, W].
        noise_row: row of each image in `noise`, int64 [B]; -1 for an image without noise.
        share: weight of the image in the mean over its stratum, [B]; the weights of a stratum sum to 1.
        gumbel: for the relaxed choice: Gumbel noise for p [B, K] and logistic noise for q [B].
        gumbel_r: for the relaxed choice: Gumbel noise for r, [L], drawn once per turn.
        seed: of the fixed primitives; None if there are none. Each part of a batch that is cut up has
            its own noise, so the parts equal the whole batch only in distribution.
        dealt: of a part of a batch that is about to be deformed: see `AugmentationPanel.dealt`.
        links: of the further primitives of a chain, one after another; an image that stays as it is stays so in all.
        recrop: of one more crop and mirror of the image, where its teacher is asked how far those alone move it.
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
    dealt: Deal | None = None
    links: tuple["Draws", ...] = ()
    recrop: CropDraws | None = None

    def __getitem__(self, rows: slice) -> "Draws":
        """The draws of some of the images, such as those of one process or one micro-batch."""
        return replace(
            self,
            z=self.z[rows],
            model=self.model[rows],
            choice=self.choice[rows],
            noise_row=self.noise_row[rows],
            share=self.share[rows],
            gumbel=None if self.gumbel is None else (self.gumbel[0][rows], self.gumbel[1][rows]),
            seed=None if self.seed is None else self.seed + (rows.start or 0),
            dealt=None,
            links=tuple(link[rows] for link in self.links),
            recrop=None if self.recrop is None else self.recrop[rows],
        )

    @property
    def deal(self) -> Deal:
        """Which image is whose, on the device."""
        if self.dealt is None:
            raise TypeError("these draws are not dealt to models and primitives: see AugmentationPanel.dealt")
        return self.dealt

    def generator(self, device: torch.device) -> torch.Generator | None:
        """The generator of the fixed primitives on the device of the images; None if there are none."""
        return None if self.seed is None else torch.Generator(device).manual_seed(self.seed)


def stratified_choices(batch_size: int, num_models: int, num_choices: int, generator: torch.Generator) -> Choices:
    """Give every (model, choice) an equal part of the batch, in random order.

    Where every stratum has an image, the share of an image is 1 / (images in its stratum). With fewer images than
    strata, as many strata are drawn as there are images, all equally likely. The share is then strata / batch, which
    keeps the weighted sum unbiased.

    Args:
        batch_size: B.
        num_models: L.
        num_choices: K + 1, or 1 where all choices are made at once.
        generator: on the CPU.
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

    Args:
        batch_size: B.
        p: [L, K], on the CPU.
        q: [L], on the CPU.
        r: [L], on the CPU.
        generator: on the CPU.
    """
    probabilities = torch.cat([q.unsqueeze(1) * p, 1 - q.unsqueeze(1)], dim=1)
    model = torch.multinomial(r, batch_size, replacement=True, generator=generator)
    choice = torch.multinomial(probabilities[model], 1, generator=generator).squeeze(1)
    return Choices(model, choice, torch.full((batch_size,), 1 / batch_size))


def expected_objectives(
    objective: Tensor, model: Tensor, choice: Tensor, share: Tensor, p: Tensor, q: Tensor
) -> Tensor:
    """O_k of each augmentation model from a stratified batch, differentiable in objective, p and q.

    Args:
        objective: o of each image, [B].
        model: [B].
        choice: [B].
        share: [B].
        p: [L, K].
        q: [L].

    Returns:
        [L].
    """
    probability = torch.cat([q.unsqueeze(1) * p, 1 - q.unsqueeze(1)], dim=1)[model, choice]
    return mean_by_model(objective * probability, model, share, len(q))


def mean_by_model(values: Tensor, model: Tensor, share: Tensor, num_models: int) -> Tensor:
    """The sum over the images b of each model of share_b values_b: [B] -> [L]."""
    return torch.zeros(num_models, device=values.device, dtype=values.dtype).index_add(0, model, values * share)


def sample_gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise -ln(-ln u), u ~ U(0, 1), on the CPU."""
    return -(-torch.rand(shape, generator=generator).clamp(1e-10, 1 - 1e-7).log()).log()


def relaxed_categorical(log_p: Tensor, gumbel: Tensor, temperature: float, hard: bool) -> Tensor:
    """A relaxed one-hot sample of Categorical(p).

    Args:
        log_p: ln p, [..., K].
        gumbel: standard Gumbel noise, [..., K].
        temperature: above 0; towards 0 the sample becomes one-hot.
        hard: straight through: a one-hot vector in the forward pass, with the gradient of the relaxed sample.

    Returns:
        [..., K], in [0, 1], summing to 1.
    """
    soft = torch.softmax((log_p + gumbel) / temperature, dim=-1)
    if not hard:
        return soft
    return F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype) + soft - soft.detach()


def relaxed_bernoulli(logit: Tensor, logistic: Tensor, temperature: float, hard: bool) -> Tensor:
    """A relaxed sample of Bernoulli(sigmoid(logit)).

    Args:
        logit: of any shape.
        logistic: standard logistic noise, of the same shape.
        temperature: as in `relaxed_categorical`.
        hard: as in `relaxed_categorical`.

    Returns:
        Of the same shape, in [0, 1].
    """
    soft = torch.sigmoid((logit + logistic) / temperature)
    return (soft > 0.5).to(soft.dtype) + soft - soft.detach() if hard else soft


def entropy(probabilities: Tensor) -> Tensor:
    """The entropy -sum p ln p over the last axis, in nats."""
    # At a probability of 0 the gradient would be infinite, and NaN after the softmax.
    return torch.special.entr(probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)).sum(-1)
