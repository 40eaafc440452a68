"""TeachAugment: an augmentation that is hard for the student and readable for its average (Suzuki, CVPR 2022).

    student       min over theta  task loss on A(x), e.g. CE(y, F(A(x)))
    augmentation  min over phi    -sum_c t_c log(1 - F(A(x))_c) + CE(y, T(A(x))) + 10 SW(x, x')

F is the student, T its exponential moving average (0.999), t the label with smoothing 0.1. The first term is what
replaces the saturating max of the cross-entropy; SW is the sliced Wasserstein distance between the colours of an
image before and after the colour network (x'), which keeps colours from drifting. The turns: n_inner = 5 batches of
the student, then a batch of the augmentation. The student's batches are augmented by the model of today and by copies
of it made every ten epochs (`augment/replay.py`).

    SW(x, x') = mean over directions u and ranks i of (sort(u.x)_i - sort(u.x')_i)^2,   u uniform on the sphere

over the colours of the pixels of one image, normalised as the student sees them (so the authors' code; the weight of
10 belongs to that scale). Each image has directions of its own (16; the authors' code: 128 for the whole batch): the
same mean, at an eighth of the sorting.

The authors' code differs from the paper, and `teach_sort` and `teach_share_batch` follow it on request: it sorts over
the images of a batch at each pixel instead of over the pixels of an image, and one batch serves the augmentation and
then the student. Also, its student and its average see an augmentation turn with BatchNorm in training mode, and
the average has no averaged statistics; here both are in evaluation mode, and statistics are averaged.

Symbols: A `nets["augmentation"]`, F `student`, T `teacher`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.replay import ReplayBuffer, ReplayDraws
from hf_transinv.augment.sampled import Sampled
from hf_transinv.augment.teach_augmentation import TeachAugmentation, TeachAugmentDraws
from hf_transinv.config import MixingConfig
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.data.transfer import send_all
from hf_transinv.divergences import cross_entropy
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.adversarial import AdversarialAugmentation, Deformed
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.teachaugment_terms import non_saturating_loss, sliced_wasserstein
from hf_transinv.objectives.turns import AUGMENTATION, Batch

CITATION = """@inproceedings{suzuki2022teachaugment,
  title     = {TeachAugment: Data Augmentation Optimization Using Teacher Knowledge},
  author    = {Suzuki, Teppei},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {10904--10914},
  year      = {2022}
}"""
CHANGES = ("change/affine", "change/scale", "change/shift")


@dataclass
class TeachAugmentConfig:
    """TeachAugment; the defaults are the paper's, but for the number of projections.

    Attributes:
        teach_inner_steps: n_inner, batches of the student to one of the augmentation.
        teach_share_batch: let the augmentation play on the student's first batch instead of one of its own.
        teach_smoothing: label smoothing of the adversarial term.
        teach_colour_weight: weight of the sliced Wasserstein distance of the colours.
        teach_projections: directions it is sliced along.
        teach_sort: "pixels" of each image, or over the "batch" at each pixel, along the same directions for all.
        teach_replay_epochs: epochs between two copies of the augmentation.
        teach_replay_decay: of the copies' priority, at each new copy.
        teach_replay_chunks: chunks of a batch, each augmented by a model drawn for it.
    """

    teach_inner_steps: int = 5
    teach_share_batch: bool = False
    teach_smoothing: float = 0.1
    teach_colour_weight: float = 10.0
    teach_projections: int = 16
    teach_sort: str = choice("pixels", ("pixels", "batch"))
    teach_replay_epochs: float = 10.0
    teach_replay_decay: float = 0.9
    teach_replay_chunks: int = 16

    def __post_init__(self) -> None:
        for name in ("teach_inner_steps", "teach_projections", "teach_replay_chunks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, given {getattr(self, name)}")
        check_choices(self)
        if not 0 <= self.teach_smoothing < 1 or not 0 < self.teach_replay_decay <= 1:
            raise InputError(
                f"teach_smoothing must be in [0, 1) and teach_replay_decay in (0, 1], "
                f"given {self.teach_smoothing} and {self.teach_replay_decay}"
            )
        if self.teach_colour_weight < 0 or not self.teach_replay_epochs > 0:
            raise InputError(
                f"teach_colour_weight must not be negative and teach_replay_epochs must be positive, "
                f"given {self.teach_colour_weight} and {self.teach_replay_epochs}"
            )

    def copy_steps(self, steps_per_epoch: float) -> int:
        """Student steps between two copies.

        Raises:
            InputError: the length of an epoch is not known (a stream).
        """
        if not math.isfinite(steps_per_epoch):
            raise InputError("the stream does not say how long an epoch is, and teach_replay_epochs counts epochs")
        return max(1, round(self.teach_replay_epochs * steps_per_epoch))


@dataclass(frozen=True)
class SlicedDraws(Sampled):
    """What is random in a turn of the augmentation.

    Attributes:
        augmentation: the draws of A_phi.
        directions: u, on the unit sphere, [B, P, 3].
    """

    augmentation: TeachAugmentDraws
    directions: Tensor


@dataclass(frozen=True)
class ReplayedDraws(Sampled):
    """How the images of a student turn are augmented.

    Attributes:
        augmentation: the draws of A_phi.
        models: which copy of the augmentation each image gets; None: today's, there is no other.
    """

    augmentation: TeachAugmentDraws
    models: ReplayDraws | None


class TeachAugment(AdversarialAugmentation):
    """A task under TeachAugment's augmentation.

    Args:
        task: what the student minimises on augmented images.
        augmentation: A_phi, for the student's classes.
        teacher: T, the average of the task's first student; it follows each of its steps.
        config: the method's.
        copy_steps: student steps between two copies for the replay.
        max_steps: student steps in all, which is room for all copies.
    """

    name = "teachaugment"
    title = "TeachAugment"
    summary = (
        "It was trained under a learned augmentation that is hard for it and that its own moving average "
        "still recognises (TeachAugment)."
    )
    citation = CITATION
    # The augmentation's turn: student and average answer to the deformed image, with a gradient to it.
    passes: ClassVar = {("student",): Passes(3), (AUGMENTATION,): Passes(2, 2)}
    configs = (TeachAugmentConfig,)

    def __init__(
        self,
        task: Objective,
        augmentation: TeachAugmentation,
        teacher: EMATeacher,
        config: TeachAugmentConfig,
        copy_steps: int,
        max_steps: int,
    ) -> None:
        super().__init__(task, augmentation, config.teach_inner_steps)
        self.student = next(iter(task.students.values()))
        if augmentation.num_classes != self.student.num_classes:
            raise InputError(
                f"the augmentation is for {augmentation.num_classes} classes, the student has "
                f"{self.student.num_classes}"
            )
        if config.teach_share_batch:
            first, *rest = self.turns[:-1]
            self.turns = ((AUGMENTATION, *first), *rest)
        self.config, self.augmentation, self.teacher = config, augmentation, teacher
        capacity = max(1, (max_steps - 1) // copy_steps)  # the last step's copy would never be used
        self.replay = ReplayBuffer(augmentation, copy_steps, capacity, config.teach_replay_decay)

    @classmethod
    def build_over(cls, task: Objective, student: Classifier, parts: Parts) -> "TeachAugment":
        config = parts.options(TeachAugmentConfig)
        augmentation = TeachAugmentation(
            student.num_classes, student.mean.flatten().tolist(), student.std.flatten().tolist()
        )
        average = EMATeacher(student, parts.ema_decay).to(parts.device)
        return cls(task, augmentation, average, config, config.copy_steps(parts.steps_per_epoch), parts.max_steps)

    @classmethod
    def check_mixing(cls, mixing: MixingConfig, options: Mapping[type, Any]) -> None:
        if mixing.mixes:
            raise InputError(
                "augment teachaugment takes no mixup and no cutmix: its networks deform an image by its one class, "
                "and a mixed image has two"
            )

    # What is random

    @property
    def kin(self) -> dict[str, str]:
        return super().kin | {"brightness": "it shifts colours", "contrast": "it scales colours"}

    def draw_augmentation(self, shape: tuple[int, ...], generator: torch.Generator) -> SlicedDraws:
        draws = self.augmentation.draw(shape, generator)
        shared = self.config.teach_sort == "batch"
        directions = torch.randn(1 if shared else shape[0], self.config.teach_projections, 3, generator=generator)
        directions = directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
        return SlicedDraws(draws, directions.expand(shape[0], -1, -1))

    def draw_deformations(self, shape: tuple[int, ...], generator: torch.Generator) -> ReplayedDraws:
        models = self.replay.draw(shape[0], self.config.teach_replay_chunks, generator)
        return ReplayedDraws(self.augmentation.draw(shape, generator), models)

    # The losses

    def deform(
        self, nets: Mapping[str, nn.Module], images: Tensor, labels: Tensor, draws: ReplayedDraws
    ) -> list[Deformed]:
        augmentation = nets[AUGMENTATION]
        if draws.models is None:
            return [Deformed(augmentation(images, labels, draws.augmentation).images)]
        runs, drawn = draws.models.runs(), draws.augmentation.to(images.device)
        if len(runs) == 1:  # all chunks have one size, and so the images their order
            found = augmentation(images, labels, drawn, self.replay.stacked(runs[0][1], augmentation)).images
            return [Deformed(torch.empty_like(images).copy_(found))]
        deformed, places = torch.empty_like(images), send_all([rows.flatten() for rows, _ in runs], images.device)
        for place, (_, models) in zip(places, runs, strict=True):
            phi = self.replay.stacked(models, augmentation)
            deformed.index_copy_(0, place, augmentation(images[place], labels[place], drawn[place], phi).images)
        return [Deformed(deformed)]

    def augmentation_loss(self, nets: Mapping[str, nn.Module], batch: Batch, draws: SlicedDraws) -> dict[str, Tensor]:
        config, draws = self.config, draws.to(batch.images.device)
        augmented = nets[AUGMENTATION](batch.images, batch.labels, draws.augmentation)
        self.augmentation.magnitudes.copy_(augmented.magnitudes)
        adversarial = non_saturating_loss(self.student(augmented.images), batch.labels, config.teach_smoothing)
        teacher = cross_entropy(self.teacher(augmented.images), batch.labels)
        # Distances are between normalised colours; the mean cancels.
        directions = draws.directions.to(augmented.images.dtype) / self.augmentation.std.view(3)
        with torch.autocast(batch.images.device.type, enabled=False):
            colours = sliced_wasserstein(batch.images.float(), augmented.coloured, directions, config.teach_sort)
        share = batch.share
        terms = {"adversarial": adversarial, "teacher": teacher, "colours": config.teach_colour_weight * colours}
        sums = {name: values.sum() * share for name, values in terms.items()}
        return {"total": torch.stack(list(sums.values())).sum(), **{name: sums[name].detach() for name in sums}}

    # What moves without an optimizer, and what can be seen

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:
        super().after_step(player, nets)
        if player == "student":
            self.teacher.update(self.student)
            self.replay.after_step(self.augmentation)

    def extra_state(self) -> dict[str, nn.Module]:
        return super().extra_state() | {"average": self.teacher, "replay": self.replay}

    def observe(self) -> dict[str, Any]:
        """Means over the classes of the gates' probabilities, and of the changes in the last augmentation turn."""
        gates = {f"gate/{name}": logits.sigmoid().mean().item() for name, logits in self.augmentation.gate.items()}
        changes = dict(zip(CHANGES, self.augmentation.magnitudes.tolist(), strict=True))
        return super().observe() | gates | changes | {"copies": self.replay.num_made}

    def warnings(self, recent: Mapping[str, float]) -> dict[str, str]:
        found = super().warnings(recent)
        if not self.replay.num_made:  # too early to judge: the average is young, and so is the augmentation
            return found
        chance, unread = math.log(self.student.num_classes), recent.get("augmentation/teacher", 0.0)
        if unread > chance:
            found["unread"] = (
                f"the augmentation is destroying the images: the teacher's loss on them is {unread:.2f}, above "
                f"ln(classes) = {chance:.2f}. Try a smaller augment_learning_rate or more student steps "
                f"(teach_inner_steps)"
            )
        seen = self.observe()
        if max(seen["gate/geometric"], seen["gate/colour"]) < 0.02:
            found["closed"] = "the augmentation has closed its gates: images stay as they are"
        elif max(seen[name] for name in CHANGES) < 1e-3:
            found["idle"] = "the augmentation has not left the identity; try a larger augment_learning_rate"
        return found
