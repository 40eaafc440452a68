"""The learned augmentation A_{phi,p,q}, and the panel of L of them with the selection r (TransInv, eq. 1-4 and 6).

    A_{phi,p,q}(x, z) = b a_i(x, z) + (1 - b) x,    i ~ Categorical(p),  b ~ Bernoulli(q),  z ~ N(0, I_M)

Symbols: phi, the parameters of the primitives' MLPs; p = softmax(`logits_p`); q = sigmoid(`logit_q`);
r = softmax(`logits_r`); lambda, the `multipliers` of the constrained objective.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_transinv.augment.augmentation_config import AugmentationConfig
from hf_transinv.augment.augmentation_model import AugmentationModel
from hf_transinv.augment.batched_phi import learned_parameters
from hf_transinv.augment.deal import deal_out
from hf_transinv.augment.fixed_primitives import FixedPrimitive
from hf_transinv.augment.primitives import Primitive
from hf_transinv.augment.selection import (
    Choices,
    Draws,
    Selection,
    relaxed_bernoulli,
    relaxed_categorical,
    sample_gumbel,
    sampled_choices,
    stratified_choices,
)


class AugmentationPanel(nn.Module):
    """L independent augmentation models, one per teacher, and the selection r among them.

    Args:
        num_models: L, the number of teachers.
        config: shared by all models; None for its defaults. Each model has its own parameters.
    """

    def __init__(self, num_models: int, config: AugmentationConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AugmentationConfig()
        models = nn.ModuleList(AugmentationModel(config) for _ in range(num_models))
        self.models = cast(Sequence[AugmentationModel], models)
        self.logits_r = nn.Parameter(torch.zeros(num_models))
        self.multipliers = nn.Parameter(torch.ones(num_models, len(config.primitives)))
        self.excess = nn.Parameter(torch.zeros_like(self.multipliers))
        primitives = self.models[0].primitives
        self.noisy = torch.tensor([primitive.uses_noise for primitive in primitives] + [False])
        self.needs_seed = any(isinstance(primitive, FixedPrimitive) for primitive in primitives)

    @property
    def num_primitives(self) -> int:
        """K, the number of primitives."""
        return len(self.config.primitives)

    @property
    def kin(self) -> dict[str, str]:
        """Corruptions of the benchmark that its primitives imitate, each with the reason."""
        return {name: why for primitive in self.models[0].primitives for name, why in primitive.kin.items()}

    def parameter_groups(
        self, lr: float = 1e-3, weight_decay: float = 1e-2, selection_lr: float = 0.03
    ) -> list[dict[str, Any]]:
        """The parameter groups for an optimizer (AdamW): phi; the logits of p, q and r; the multipliers and excess.

        The objective moves the last two itself, by projected dual ascent. They are in a group with a learning rate of
        0, so that the optimizer's loss scaling and `zero_grad` apply to their gradients.

        Args:
            lr: learning rate of phi.
            weight_decay: weight decay of phi.
            selection_lr: learning rate of the logits.
        """
        phi = [x for model in self.models for primitive in model.primitives for x in primitive.parameters()]
        logits = [self.logits_r, *(x for model in self.models for x in (model.logits_p, model.logit_q))]
        return [
            {"params": phi, "lr": lr, "weight_decay": weight_decay},
            {"params": logits, "lr": selection_lr, "weight_decay": 0.0},
            {"params": [self.multipliers, self.excess], "lr": 0.0, "weight_decay": 0.0},
        ]

    def selection(self) -> Selection:
        """The current p, q, r, multipliers and excess, in the graph."""
        p = torch.softmax(torch.stack([model.logits_p for model in self.models]), dim=1)
        q = torch.sigmoid(torch.stack([model.logit_q for model in self.models]))
        return Selection(p, q, torch.softmax(self.logits_r, dim=0), self.multipliers, self.excess)

    @torch.no_grad()
    def selection_on_host(self) -> Selection:
        """The same as float32 on the CPU, without graph; waits for the device, once."""
        parts = [part.float() for part in self.selection()]
        copied = torch.cat([part.flatten() for part in parts]).cpu().split([part.numel() for part in parts])
        return Selection(*(values.view_as(part) for values, part in zip(copied, parts, strict=True)))

    def draw_strata(
        self,
        shape: tuple[int, ...],
        device: torch.device,
        generator: torch.Generator,
        selection: Selection | None = None,
    ) -> Draws:
        """Draw how a batch is deformed in an augmentation turn: each choice of each model gets an equal share of it.

        Args:
            shape: of the images, (B, C, H, W).
            device: of the latents and the noise.
            generator: on the CPU; the only source of randomness. On another device it seeds that device's own.
            selection: p on the CPU, detached, from which the further links of a chain are sampled.
        """
        if self.config.estimator == "gumbel":
            return self._draw_relaxed(shape, device, generator)
        choices = stratified_choices(shape[0], len(self.models), self.num_primitives + 1, generator)
        draws = self._draw_deformations(choices, self.noisy[choices.choice], shape, device, generator)
        return self._chained(draws, shape, device, generator, selection)

    def draw_samples(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator, selection: Selection
    ) -> Draws:
        """Draw how a batch is deformed in a student turn: each image according to a sample from r, q and p.

        Args:
            shape: of the images, (B, C, H, W).
            device: of the latents and the noise.
            generator: on the CPU; the only source of randomness. On another device it seeds that device's own.
            selection: p, q, r on the CPU, detached.
        """
        choices = sampled_choices(shape[0], selection.p, selection.q, selection.r, generator)
        draws = self._draw_deformations(choices, self.noisy[choices.choice], shape, device, generator)
        return self._chained(draws, shape, device, generator, selection)

    def _chained(
        self,
        draws: Draws,
        shape: tuple[int, ...],
        device: torch.device,
        generator: torch.Generator,
        selection: Selection | None,
    ) -> Draws:
        """The draws with those of the further links, whose primitives are samples from p."""
        if self.config.chain == 1:
            return draws
        if selection is None:
            raise TypeError("the further links of a chain are drawn from p: give the selection")
        links, is_deformed = [], draws.choice < self.num_primitives
        for _ in range(self.config.chain - 1):
            drawn = torch.multinomial(selection.p[draws.model], 1, generator=generator).squeeze(1)
            own = Choices(draws.model, torch.where(is_deformed, drawn, self.num_primitives), draws.share)
            links.append(self._draw_deformations(own, self.noisy[own.choice], shape, device, generator))
        return replace(draws, links=tuple(links))

    def link_weights(self, draws: Draws, selection: Selection) -> Tensor | float:
        """Factors of the images' losses, [B], all 1, whose gradient is that of sampling the further links from p.

        Args:
            draws: of the images, `dealt`.
            selection: in the graph.
        """
        weights: Tensor | float = 1.0
        for link in draws.links:
            never = torch.ones_like(selection.p[:, :1])  # the choice of an image that stays as it is
            chosen = torch.cat([selection.p, never], dim=1)[link.deal.model, link.deal.choice]
            weights = weights * (chosen / chosen.detach())
        return weights

    def _draw_relaxed(self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator) -> Draws:
        """Draw for the relaxed choice: every primitive deforms every image, so only the models get a share each."""
        batch_size, num_models = shape[0], len(self.models)
        choices = stratified_choices(batch_size, num_models, 1, generator)
        gumbel_p = sample_gumbel((batch_size, self.num_primitives), generator).to(device)
        uniform = torch.rand(batch_size, generator=generator).clamp(1e-7, 1 - 1e-7)
        gumbel_r = sample_gumbel((num_models,), generator).to(device)
        needs_noise = torch.full((batch_size,), bool(self.noisy.any()))
        draws = self._draw_deformations(choices, needs_noise, shape, device, generator)
        return replace(draws, gumbel=(gumbel_p, torch.logit(uniform).to(device)), gumbel_r=gumbel_r)

    def _draw_deformations(
        self,
        choices: Choices,
        needs_noise: Tensor,
        shape: tuple[int, ...],
        device: torch.device,
        generator: torch.Generator,
    ) -> Draws:
        """Draw the latents, the noise for the images that need it (bool [B]) and the seed of the fixed primitives."""
        there = generator
        if device.type != "cpu":  # numbers are drawn on the device, from a seed that is drawn here: no copy
            there = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        z = torch.randn(shape[0], self.config.primitive.latent_dim, generator=there, device=device)
        noise = torch.randn(int(needs_noise.sum()), *shape[1:], generator=there, device=device)
        return Draws(
            z=z,
            model=choices.model,
            choice=choices.choice,
            noise=noise,
            noise_row=torch.where(needs_noise, needs_noise.cumsum(0) - 1, -1),
            share=choices.share,
            seed=int(torch.randint(2**62, (), generator=generator)) if self.needs_seed else None,
        )

    def dealt(self, device: torch.device, draws: Sequence[Draws], asks_clean: bool = True) -> list[Draws]:
        """Draws and their links with how images are dealt to models and primitives, copied to the device at once.

        Args:
            device: of the images.
            draws: of the same images each.
            asks_clean: whether teachers judge images that stay as they are.
        """
        if all(each.dealt for each in draws):
            return list(draws)
        flat = [one for each in draws for one in (each, *each.links)]
        deals = iter(deal_out(flat, len(self.models), self.num_primitives, device, asks_clean))
        return [
            replace(each, dealt=next(deals), links=tuple(replace(link, dealt=next(deals)) for link in each.links))
            for each in draws
        ]

    def deform(self, images: Tensor, draws: Draws) -> Tensor:
        """The images of `forward`, without the selection."""
        (draws,) = self.dealt(images.device, [draws])
        with torch.autocast(images.device.type, enabled=False):
            if draws.gumbel is not None:
                return self._deform_relaxed(images.float(), draws, *draws.gumbel)
            deformed = self._deform_chosen(images.float(), draws)
            for link in draws.links:
                deformed = self._deform_chosen(deformed, link)
            return deformed

    def forward(self, images: Tensor, draws: Draws) -> tuple[Tensor, Selection]:
        """Deform images as drawn.

        Computes in float32, also under autocast: a mantissa of eight bits is too short for pixels.

        Args:
            images: [B, C, H, W] in [0, 1].
            draws: of these images.

        Returns:
            The deformed images, float32 [B, C, H, W] in [0, 1], and the selection; both in the graph.
        """
        with torch.autocast(images.device.type, enabled=False):
            return self.deform(images, draws), self.selection()

    @torch.no_grad()
    def preview(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Every primitive of every model on the same images and latents: [N, C, H, W] -> [L, K, N, C, H, W]."""
        z = torch.randn(len(images), self.config.primitive.latent_dim, generator=generator).to(images.device)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        rows = [
            torch.stack(
                [a.apply_to(images, a(z), noise if a.uses_noise else None, generator) for a in model.primitives]
            )
            for model in self.models
        ]
        return torch.stack(rows)

    def _deform_chosen(self, images: Tensor, draws: Draws) -> Tensor:
        generator, deal = draws.generator(images.device), draws.deal
        images, z = images[deal.order], draws.z[deal.order]
        parameters = learned_parameters(self._primitives(), z, deal.sorted_model, deal.sorted_choice)
        deformed, start = [], 0
        for index, size in enumerate(deal.num_chosen):
            rows = slice(start, start + size)
            if index == self.num_primitives:
                deformed.append(images[rows])
            elif size:  # affine_grid refuses an empty batch
                primitive, own = self.models[0].primitives[index], parameters[index]
                noise = draws.noise[deal.noise_row[rows]] if primitive.uses_noise else None
                strengths = images.new_zeros(size, 0) if own is None else own[rows]
                deformed.append(primitive.apply_to(images[rows], strengths, noise, generator))
            start += size
        # In the images' memory format: networks are slower in another, and sum in another order.
        is_channels_last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format
        return torch.cat(deformed)[deal.back].contiguous(memory_format=layout)

    def _primitives(self) -> list[Sequence[Primitive]]:
        return [model.primitives for model in self.models]

    def _deform_relaxed(self, images: Tensor, draws: Draws, gumbel_p: Tensor, logistic_q: Tensor) -> Tensor:
        config, deal = self.config, draws.deal
        model = deal.model
        selection = self.selection()
        weights = relaxed_categorical(
            selection.p.log()[model], gumbel_p, config.gumbel_temperature, config.gumbel_hard
        )
        applied = relaxed_bernoulli(
            torch.logit(selection.q, eps=1e-6)[model], logistic_q, config.gumbel_temperature, config.gumbel_hard
        )
        mixed, generator = torch.zeros_like(images), draws.generator(images.device)
        for index in range(self.num_primitives):
            primitive = self.models[0].primitives[index]
            noise = draws.noise[deal.noise_row[deal.back]] if primitive.uses_noise else None
            own = learned_parameters(self._primitives(), draws.z, model, torch.full_like(model, index))[index]
            strengths = images.new_zeros(len(images), 0) if own is None else own
            deformed = primitive.apply_to(images, strengths, noise, generator)
            mixed = mixed + weights[:, index].view(-1, 1, 1, 1) * deformed
        return torch.lerp(images, mixed, applied.view(-1, 1, 1, 1))
