"""TransInv: teachers' invariance transferred to a student by a learned augmentation (Kurioka et al., ICONIP 2024).

    min over theta, max over (phi, p, q) of  sum_i E_z[ L1(y_i, F(A(x_i, z))) - L2(T(x_i), T(A(x_i, z))) ]     (eq. 5)

The student descends L1 under the augmentation; each teacher's augmentation model ascends "hard - keep": hard for the
student (L1), harmless to its teacher (L2). With L teachers the max is inside eq. 6's sum, so each model ascends
its own objective at full weight, and r alone chooses among them (`selection="r"`), with an entropy bonus: the
objective is linear in r, and without the bonus r runs to one teacher.

Eq. 5 taken literally has a hole: destroying an image costs a student of c classes up to ln c and a teacher of d
classes about ln d, so with c > d destroying pays. Hence three forms of what the augmentation ascends
(`transinv_forms`): the paper's, one that is normalised by ln c and ln d, and one that bounds keep by a tolerance.

keep is KL(T(x) || T(A(x))), or the paper's cross-entropy (`keep="cross_entropy"`), which adds the teacher's own
entropy H(T(x)): a constant for phi, p and q, but not for r, which it turns against unsure teachers.

What is ascended is hard less L1(y, F(x)), which A does not change: as images are dealt to primitives at random, it
takes the same from each in the mean, and much of the noise, since images differ in how hard they are as they are.

Symbols: F `nets["student"]`, A `nets["augmentation"]`, T^k `teachers[k]`, L1 `hard`, L2 `keep`, lambda
`multipliers`. Departure: q's choice and the teacher's are made per image (the paper: per iteration).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel, Selection
from hf_transinv.augment.magnitudes import describe_magnitudes
from hf_transinv.augment.primitives import CITATION, PrimitiveConfig
from hf_transinv.augment.sampled import Sampled
from hf_transinv.augment.saving import save_augmentation
from hf_transinv.augment.selection import Draws, entropy, relaxed_categorical
from hf_transinv.config import TrainConfig
from hf_transinv.data.transforms import CropFlip
from hf_transinv.divergences import cross_entropy
from hf_transinv.errors import InputError
from hf_transinv.figures import plot_augmentations, plot_history, plot_summary
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.adversarial import AdversarialAugmentation, Deformed
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.sample import Sample
from hf_transinv.objectives.transinv_config import TransInvConfig
from hf_transinv.objectives.transinv_forms import Constraint, Measured, ascend_dual, build_form
from hf_transinv.objectives.transinv_judges import Judges
from hf_transinv.objectives.turns import AUGMENTATION, STUDENT, Batch, Turn
from hf_transinv.record import read_metrics


@dataclass(frozen=True)
class DeformationDraws(Sampled):
    """How the images of a student turn are deformed.

    Attributes:
        passes: one set of draws; for eq. 6's sum, one for each teacher's model.
    """

    passes: tuple[Draws, ...]


class TransInv(AdversarialAugmentation):
    """Algorithm 1 with L teachers.

    Args:
        task: what F, its "student", minimises on deformed images: eq. 5's L1 is `Supervised`; any objective of fixed
            networks will do.
        augmentation: the panel of L augmentation models; it has as many as there are teachers.
        teachers: T^1 .. T^L, frozen; an EMATeacher among them follows the student.
        config: the form of the objective; None: as its defaults are.
        ordinary: crop and mirror of the training images, for a tolerance that is relative to them.

    Raises:
        InputError: teachers, augmentation models and options do not fit together.
    """

    name = "transinv"
    title = "TransInv"
    summary = (
        "It was trained under learned augmentations that are hard for it and that its teachers tolerate "
        "(TransInv), to take over what its teachers are invariant to."
    )
    citation = CITATION
    # The augmentation's turn: the student answers to the deformed image, with a gradient to it, and to the clean one;
    # one of the teachers likewise. Images that a turn leaves as they are, one in K + 1, ask no teacher: the bound
    # is too high by that much. The number of teachers changes nothing, since one of them judges each image.
    passes: ClassVar = {("student",): Passes(3), (AUGMENTATION,): Passes(3, 3)}
    configs = (TransInvConfig, AugmentationConfig, PrimitiveConfig)

    def __init__(
        self,
        task: Objective,
        augmentation: AugmentationPanel,
        teachers: Sequence[Teacher] | nn.ModuleList,
        config: TransInvConfig | None = None,
        ordinary: CropFlip | None = None,
    ) -> None:
        config, ordinary = config or TransInvConfig(), ordinary or CropFlip()
        if len(teachers) != len(augmentation.models):
            raise InputError(
                f"{len(teachers)} teachers need as many augmentation models, not {len(augmentation.models)}"
            )
        relaxed = augmentation.config.estimator == "gumbel"
        if relaxed and (config.objective, config.multipliers) == ("constrained", "primitive"):
            raise InputError("multipliers 'primitive' need estimator 'expectation': a relaxed image mixes primitives")
        if config.tolerance_relative_to == "crop" and ordinary.crop == "none" and not ordinary.flip:
            raise InputError(
                "tolerance_relative_to crop measures how far crop and flip move a teacher, and crop none, flip false "
                "move nothing: choose another crop, or tolerance_relative_to entropy"
            )
        super().__init__(task, augmentation, config.inner_steps)
        self.config = config
        self.views *= len(teachers) if config.selection == "sum" else 1
        self.panel = augmentation
        self.teachers = cast(Sequence[Teacher], tuple(teachers))
        self.student = next(iter(task.students.values()))
        augmentation.logits_r.requires_grad_(config.selection == "r")
        for parameter in (augmentation.multipliers, augmentation.excess):
            parameter.requires_grad_(config.objective == "constrained")
        self._drawn_from: Selection | None = None
        # What is cropped here is float, of which there are no bicubic crops.
        crop = replace(ordinary, interpolation="bilinear")
        self.judges = Judges(self.teachers, config.keep, config.tolerance_relative_to, crop)
        self.form = build_form(config, self.student.num_classes, [teacher.num_classes for teacher in self.teachers])

    @classmethod
    def build_over(cls, task: Objective, student: Classifier, parts: Parts) -> "TransInv":
        teachers = parts.teachers(student)
        panel = replace(parts.options(AugmentationConfig), primitive=parts.options(PrimitiveConfig))
        models, config = AugmentationPanel(len(teachers), panel), parts.options(TransInvConfig)
        return cls(task, models, teachers, config, parts.ordinary)

    def passes_of(self, turn: Turn) -> Passes:
        recrops = self.judges.relative_to == "crop" and AUGMENTATION in turn
        return super().passes_of(turn) + Passes(0, int(recrops)) * Fraction(1, self.variants_a_network)

    # What is random

    def draw_augmentation(self, shape: tuple[int, ...], generator: torch.Generator) -> Draws:
        panel = self.panel
        draws = panel.draw_strata(shape, panel.logits_r.device, generator, self.selection())
        self._drawn_from = None  # p, q and r are about to change
        if self.judges.relative_to != "crop":
            return draws
        return replace(draws, recrop=self.judges.crop.draw(shape[0], (shape[2], shape[3]), generator))

    def draw_deformations(self, shape: tuple[int, ...], generator: torch.Generator) -> DeformationDraws:
        """One deformation of every image by a model drawn from r, or, for eq. 6's sum, one by each model."""
        panel, selection = self.panel, self.selection()
        choices = [selection.r] if self.config.selection == "r" else torch.eye(len(self.teachers))
        device = panel.logits_r.device
        drawn = (panel.draw_samples(shape, device, generator, selection._replace(r=r)) for r in choices)
        return DeformationDraws(tuple(drawn))

    def kinds_of(self, draws: DeformationDraws) -> Tensor:
        first, num_primitives = draws.passes[0], self.panel.num_primitives
        return torch.where(first.choice < num_primitives, first.model * num_primitives + first.choice, -1)

    def selection(self) -> Selection:
        """p, q, r and the multipliers on the CPU: copied from the device once after each augmentation turn."""
        if self._drawn_from is None:
            self._drawn_from = self.panel.selection_on_host()
        return self._drawn_from

    # The losses

    def deform(
        self, nets: Mapping[str, nn.Module], images: Tensor, labels: Tensor, draws: DeformationDraws
    ) -> list[Deformed]:
        dealt = self.panel.dealt(images.device, draws.passes)
        return [Deformed(self.panel.deform(images, each), each.deal.deformed) for each in dealt]

    def augmentation_loss(self, nets: Mapping[str, nn.Module], batch: Batch, draws: Draws) -> dict[str, Tensor]:
        config = self.config
        # KL of an image that is left as it is: exactly 0, unless the choice is relaxed.
        asks_clean = config.keep != "kl" or draws.gumbel is not None
        (draws,) = self.panel.dealt(batch.images.device, [draws], asks_clean)
        augmented, selection = nets["augmentation"](batch.images, draws)
        hard, clean = cross_entropy(self.student(augmented), batch.labels), self._clean_loss(batch, draws)
        keep, yardstick = self.judges(batch.images, augmented, draws.deal, draws.recrop)
        # Constants of a turn are shared out over micro-batches as the images are.
        part = len(batch.images) * batch.world_size / batch.global_batch_size
        measured = Measured(
            hard - clean,
            keep,
            draws.deal.model,
            draws.deal.choice,
            draws.deal.share * batch.world_size * self.panel.link_weights(draws, selection),
            selection,
            part,
            is_relaxed=draws.gumbel is not None,
            yardstick=yardstick,
        )
        ascent = self.form(measured)
        bonus = config.p_entropy * entropy(selection.p).sum() * part
        if config.selection == "r":
            chosen = selection.r
            if draws.gumbel_r is not None:
                relaxation = self.panel.config
                temperature, straight_through = relaxation.gumbel_temperature, relaxation.gumbel_hard
                chosen = relaxed_categorical(chosen.log(), draws.gumbel_r, temperature, straight_through)
            bonus = (
                bonus + (chosen * ascent.objectives.detach()).sum() + config.r_entropy * entropy(selection.r) * part
            )
        return {
            "total": -(ascent.objectives.sum() + bonus) - ascent.dual,
            "hard": ascent.hard.detach().mean() + clean.mean() * part,
            "keep": ascent.keep.detach().mean(),
            **{f"bound_{k}": bound for k, bound in enumerate(() if ascent.bounds is None else ascent.bounds, 1)},
        }

    def _clean_loss(self, batch: Batch, draws: Draws) -> Tensor:
        """L1 of the student on the images as they are, [B]; 0 where all primitives are in each image (Gumbel)."""
        if draws.gumbel is not None:
            return torch.zeros(len(batch.images), device=batch.images.device)
        with torch.no_grad():
            return cross_entropy(self.student(batch.images), batch.labels)

    # What is kept of it

    def parameter_groups(self, player: str, config: TrainConfig) -> list[dict[str, Any]]:
        rates = config.augment_learning_rate, config.augment_weight_decay, config.selection_learning_rate
        return self.panel.parameter_groups(*rates)

    def export_learned(self, sample: Sample) -> dict[str, Any]:
        panel, figures, learned = self.panel, sample.folder / "figures", self.observe()
        shown = {"teacher_names": sample.teacher_names, "primitive_names": list(panel.config.primitives)}
        save_augmentation(panel, [teacher.name for teacher in self.teachers], sample.folder / "augmentation")
        history = [line for line in read_metrics(sample.folder / "metrics.jsonl") if "p" in line]
        bounds = {"bounds": self.form.last_bounds(history)} if isinstance(self.form, Constraint) else {}
        plot_history(history, figures / "selection.png", **shown)
        images, generator = sample.images, torch.Generator().manual_seed(sample.seed)
        deformed, path = panel.preview(images, generator).cpu(), figures / "augmentation.png"
        plot_augmentations(images.cpu(), deformed, path, p=learned["p"], q=learned["q"], **shown)
        if sample.gain:
            before, after = sample.gain
            one, path = deformed[:, :, 0], figures / "summary.png"
            plot_summary(images[0].cpu(), one, path, p=learned["p"], before=before, after=after, **shown)
        return {"magnitudes": describe_magnitudes(panel, sample.seed), **bounds}

    # What moves without an optimizer, and what can be seen

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:
        if player == AUGMENTATION and self.config.objective == "constrained":
            ascend_dual(self.panel.multipliers, self.panel.excess, self.config.dual_learning_rate)
        super().after_step(player, nets)
        if player == STUDENT:
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
        p, q, r, *_ = self.selection()
        found = {}
        loss, chance = recent.get("augmentation/hard", 0.0), math.log(self.student.num_classes)
        if q.max() > 0.95 and loss > 0.95 * chance:
            found["hole"] = (
                f"the augmentation is destroying the images: q is {q.max():.2f} and the student's loss {loss:.2f} is "
                f"near ln(classes) = {chance:.2f}. Use --objective constrained (or a smaller --tolerance)"
            )
        if q.max() < 0.02:
            found["idle"] = (
                f"the augmentation has switched itself off (q at most {q.max():.3f}); try a larger --tolerance"
            )
        if len(r) > 1 and r.max() > 0.99 and self.config.selection == "r":
            found["r"] = f"r has collapsed onto teacher {int(r.argmax()) + 1}; try a larger --r_entropy"
        if p.shape[1] > 1 and p.max() > 0.99:
            found["p"] = "p of a teacher has collapsed onto one primitive; try --p_entropy 0.1"
        return found
