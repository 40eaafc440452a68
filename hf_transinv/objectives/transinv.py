"""TransInv: teachers' invariance transferred to a student by a learned augmentation (Kurioka et al., ICONIP 2024).

    min over theta, max over (phi, p, q) of  sum_i E_z[ L1(y_i, F(A(x_i, z))) - L2(T(x_i), T(A(x_i, z))) ]     (eq. 5)

The student descends L1 under the augmentation; each teacher's augmentation model ascends "hard - keep": hard for the
student (L1), harmless to its teacher (L2). With L teachers the max stands inside eq. 6's sum, so each model ascends
its own objective at full weight, and r alone chooses among them (`selection="r"`), with an entropy bonus: the
objective is linear in r, and without the bonus r runs to one teacher.

Eq. 5 taken literally has a hole: destroying an image costs a student of c classes up to ln c and a teacher of d
classes about ln d, so with c > d destroying pays. Hence three forms of what the augmentation ascends, O_k (hard and
keep are means under A):

    paper         hard - keep
    normalised    hard / ln c - keep / ln d
    constrained   hard subject to keep <= tolerance: hard - lambda (keep - tolerance), lambda >= 0 by dual ascent

With a multiplier a primitive, each primitive's own mean is held to the tolerance, weighted by q p_i like the rest, so
p and q see a primitive's slack as a reward.

keep is KL(T(x) || T(A(x))), or the paper's cross-entropy (`keep="cross_entropy"`), which adds the teacher's own
entropy H(T(x)): a constant for phi, p and q, but not for r, which it turns against unsure teachers.

Which symbol is which: F `nets["student"]`, A `nets["augmentation"]`, T^k `teachers[k]`, L1 `hard`, L2 `keep`, lambda
`multipliers`. Departure: q's choice is made an image, and so is the teacher's (the paper: an iteration).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_transinv.augment.learned import AugmentationPanel, Selection
from hf_transinv.augment.policies.base import Together
from hf_transinv.augment.primitives import CITATION
from hf_transinv.augment.selection import (
    Draws,
    entropy,
    expected_objectives,
    mean_by_model,
    relaxed_categorical,
)
from hf_transinv.divergences import cross_entropy, kl_divergence, soft_cross_entropy
from hf_transinv.errors import InputError
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.adversarial import AdversarialAugmentation
from hf_transinv.objectives.base import Batch, Objective


@dataclass
class TransInvConfig:
    """The objective.

    Attributes:
        objective: "paper", "normalised" or "constrained", see the module's docstring.
        tolerance: constrained form: how far a teacher's answer may move in the mean, KL in nats.
        multipliers: constrained form: one multiplier a "teacher", or one a "primitive" (each then learns its own
            range).
        dual_learning_rate: constrained form: what a multiplier gains a turn for each nat beyond the tolerance.
        keep: "kl", or "cross_entropy" as the paper has it.
        selection: "r" learns which teacher's augmentation an image gets; "sum" is eq. 6 without r: the student sees
            every image under each teacher's augmentation, at that many times the cost.
        r_entropy: weight of the entropy bonus on r.
        p_entropy: weight of the entropy bonus on each p.
        inner_steps: n_inner of Algorithm 1, student turns to one augmentation turn.
    """

    objective: str = "constrained"
    tolerance: float = 0.1
    multipliers: str = "teacher"
    dual_learning_rate: float = 0.5
    keep: str = "kl"
    selection: str = "r"
    r_entropy: float = 0.3
    p_entropy: float = 0.0
    inner_steps: int = 5

    def __post_init__(self) -> None:
        choices = {
            "objective": ("paper", "normalised", "constrained"),
            "multipliers": ("teacher", "primitive"),
            "keep": ("kl", "cross_entropy"),
            "selection": ("r", "sum"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.inner_steps < 1 or self.tolerance <= 0 or min(self.r_entropy, self.p_entropy) < 0:
            raise InputError(
                "inner_steps must be at least 1, tolerance positive, r_entropy and p_entropy not negative"
            )
        if not self.dual_learning_rate > 0:
            raise InputError(f"dual_learning_rate must be positive, given {self.dual_learning_rate}")
        if self.objective == "constrained" and self.keep != "kl":
            raise InputError(
                "the constrained objective bounds a KL divergence: it needs keep 'kl', not 'cross_entropy'"
            )


class TransInv(AdversarialAugmentation):
    """Algorithm 1 with L teachers.

    Args:
        task: what F, its "student", minimises on deformed images: eq. 5's L1 is `Supervised`; any objective of fixed
            networks will do.
        augmentation: the panel of L augmentation models; it has as many as there are teachers.
        teachers: T^1 .. T^L, frozen; an EMATeacher among them follows the student.
        config: the form of the objective; None: as its defaults are.
    """

    name = "transinv"
    citation = CITATION

    def __init__(
        self,
        task: Objective,
        augmentation: AugmentationPanel,
        teachers: nn.ModuleList,
        config: TransInvConfig | None = None,
    ) -> None:
        config = config or TransInvConfig()
        if len(teachers) != len(augmentation.models):
            raise InputError(
                f"{len(teachers)} teachers need as many augmentation models, not {len(augmentation.models)}"
            )
        relaxed = augmentation.config.estimator == "gumbel"
        if relaxed and config.objective == "constrained" and config.multipliers == "primitive":
            raise InputError("multipliers 'primitive' need estimator 'expectation': a relaxed image mixes primitives")
        super().__init__(task, augmentation, config.inner_steps)
        self.config = config
        self.teachers = teachers
        self.student = next(iter(task.students.values()))
        augmentation.logits_r.requires_grad_(config.selection == "r")
        augmentation.multipliers.requires_grad_(config.objective == "constrained")
        self._drawn_from: Selection | None = None
        self._log_classes = torch.tensor([math.log(teacher.num_classes) for teacher in teachers])

    # What is random

    def draw_augmentation(self, shape: tuple[int, ...], generator: torch.Generator) -> Draws:
        panel = self.players["augmentation"]
        draws = panel.draw(shape, panel.logits_r.device, generator, True, self.selection())
        self._drawn_from = None  # p, q and r are about to change
        return draws

    def draw_deformations(self, shape: tuple[int, ...], generator: torch.Generator) -> Together:
        """One deformation of every image by a model drawn from r, or, for eq. 6's sum, one by each model."""
        panel, selection = self.players["augmentation"], self.selection()
        choices = [selection.r] if self.config.selection == "r" else torch.eye(len(self.teachers))
        return Together(
            tuple(panel.draw(shape, panel.logits_r.device, generator, False, selection._replace(r=r)) for r in choices)
        )

    def selection(self) -> Selection:
        """p, q, r and the multipliers on the CPU: copied from the device once after each augmentation turn."""
        if self._drawn_from is None:
            with torch.no_grad():
                self._drawn_from = Selection(*(x.float().cpu() for x in self.players["augmentation"].selection()))
        return self._drawn_from

    # The losses

    def deform(self, nets: Mapping[str, nn.Module], images: Tensor, labels: Tensor, draws: Together) -> list[Tensor]:
        return [nets["augmentation"](images, drawn)[0] for drawn in draws.parts]

    def augmentation_loss(self, nets: Mapping[str, nn.Module], batch: Batch, draws: Draws) -> dict[str, Tensor]:
        config = self.config
        augmented, selection = nets["augmentation"](batch.images, draws)
        hard = cross_entropy(self.student(augmented), batch.labels)
        keep = self._keep(batch.images, augmented, draws)
        objectives, hard_mean, keep_mean, dual = self._objectives(hard, keep, selection, draws, batch)
        # Constants of a turn are shared out over micro-batches as the images are.
        part = len(batch.images) * batch.world_size / batch.global_batch_size
        bonus = config.p_entropy * entropy(selection.p).sum() * part
        if config.selection == "r":
            chosen = selection.r
            if draws.gumbel_r is not None:
                panel = self.players["augmentation"].config
                temperature, straight_through = panel.gumbel_temperature, panel.gumbel_hard
                chosen = relaxed_categorical(chosen.log(), draws.gumbel_r, temperature, straight_through)
            bonus = bonus + (chosen * objectives.detach()).sum() + config.r_entropy * entropy(selection.r) * part
        return {
            "total": -(objectives.sum() + bonus) - dual,
            "hard": hard_mean.detach().mean(),
            "keep": keep_mean.detach().mean(),
        }

    def _objectives(self, hard: Tensor, keep: Tensor, selection: Selection, draws: Draws, batch: Batch):
        """O_k, and the means of hard and keep under A^k, all [L]; and the dual objective of the multipliers."""
        config, device = self.config, hard.device
        model, choice = draws.model.to(device), draws.choice.to(device)
        share = draws.share.to(device) * batch.world_size

        def mean(values: Tensor) -> Tensor:
            if draws.gumbel is not None:  # the choice is already in the image
                return mean_by_model(values, model, share, len(self.teachers))
            return expected_objectives(values, model, choice, share, selection.p, selection.q)

        hard_mean, keep_mean = mean(hard), mean(keep)
        dual = hard.new_zeros(())
        if config.objective == "paper":
            return hard_mean - keep_mean, hard_mean, keep_mean, dual
        if config.objective == "normalised":
            classes = math.log(self.student.num_classes)
            return hard_mean / classes - keep_mean / self._log_classes.to(device), hard_mean, keep_mean, dual
        multipliers = selection.multipliers
        if config.multipliers == "teacher":
            part = len(batch.images) * batch.world_size / batch.global_batch_size
            excess = keep_mean - config.tolerance * part
            dual = (multipliers[:, 0] * excess.detach()).sum()
            return hard_mean - multipliers[:, 0].detach() * excess, hard_mean, keep_mean, dual
        moved = choice < selection.p.shape[1]
        excess = torch.where(moved, keep - config.tolerance, 0.0)
        weight = multipliers[model, choice.clamp_max(selection.p.shape[1] - 1)]
        dual = (weight * excess.detach() * share).sum()
        return mean(hard - weight.detach() * excess), hard_mean, keep_mean, dual

    def _keep(self, images: Tensor, augmented: Tensor, draws: Draws) -> Tensor:
        """How far each image's teacher moved, [B]: KL(T(x) || T(A(x))), or the paper's cross-entropy."""
        exact = self.config.keep == "kl" and draws.gumbel is None  # KL of an image left as it is: exactly 0
        divergence = kl_divergence if self.config.keep == "kl" else soft_cross_entropy
        rows, values = [], []
        for k, teacher in enumerate(self.teachers):
            mine = draws.model == k
            if exact:
                mine = mine & (draws.choice < self.players["augmentation"].num_primitives)
            row = mine.nonzero().squeeze(1).to(images.device)
            if len(row):
                with torch.no_grad():
                    clean = teacher(images[row])
                rows.append(row)
                values.append(divergence(clean, teacher(augmented[row])))
        zeros = torch.zeros(len(images), device=images.device)
        return zeros.index_copy(0, torch.cat(rows), torch.cat(values)) if rows else zeros

    # What moves without an optimizer, and what can be seen

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:
        if player == "augmentation" and self.config.objective == "constrained":
            multipliers = self.players["augmentation"].multipliers
            if multipliers.grad is not None:
                # Float16's loss scaling begins with gradients that overflow, and skips those steps.
                gradient = multipliers.grad.nan_to_num(0.0, 0.0, 0.0)
                with torch.no_grad():
                    multipliers.sub_(self.config.dual_learning_rate * gradient).clamp_(min=0)
        super().after_step(player, nets)
        if player == "student":
            for teacher in self._averages():
                teacher.update(self.student)

    def _averages(self) -> list[EMATeacher]:
        distinct = {id(teacher): teacher for teacher in self.teachers if isinstance(teacher, EMATeacher)}
        return list(distinct.values())

    def extra_state(self) -> dict[str, nn.Module]:
        averages = {f"ema{index or ''}": teacher for index, teacher in enumerate(self._averages())}
        return super().extra_state() | averages

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._drawn_from = None

    def observe(self) -> dict[str, Any]:
        selection = self.selection()
        seen = super().observe() | {"p": selection.p.tolist(), "q": selection.q.tolist()}
        if self.config.selection == "r":
            seen["r"] = selection.r.tolist()
        if self.config.objective == "constrained":
            columns = 1 if self.config.multipliers == "teacher" else None
            seen["multipliers"] = selection.multipliers[:, :columns].tolist()
        return seen

    def warnings(self, recent: Mapping[str, float]) -> dict[str, str]:
        p, q, r, _ = self.selection()
        found = {}
        loss, chance = recent.get("augmentation/hard", 0.0), math.log(self.student.num_classes)
        if q.max() > 0.95 and loss > 0.95 * chance:
            found["hole"] = (
                f"the augmentation is destroying the images: q is {q.max():.2f} and the student's loss {loss:.2f} is "
                f"near ln(classes) = {chance:.2f}. Use --objective constrained (or a smaller --tolerance)"
            )
        if q.max() < 0.02:
            found["idle"] = f"the augmentation has switched itself off (q at most {q.max():.3f}); try --q_min 0.2"
        if len(r) > 1 and r.max() > 0.99 and self.config.selection == "r":
            found["r"] = f"r has collapsed onto teacher {int(r.argmax()) + 1}; try a larger --r_entropy"
        if p.shape[1] > 1 and p.max() > 0.99:
            found["p"] = "p of a teacher has collapsed onto one primitive; try --p_entropy 0.1"
        return found
