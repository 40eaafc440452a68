"""What the methods are built from, whoever builds them: a run from its configuration, or the benchmark."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch

from hf_transinv.augment.policies.policy import Policy
from hf_transinv.data.transforms import CropFlip
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import Teacher

Options = TypeVar("Options")


class Parts(Protocol):
    """Hands out what `Objective.build` asks for.

    Attributes:
        policies: fixed augmentations of the student's images, one after another.
        second_policies: those of the second variant, where it has its own; None: the same.
        label_smoothing: of cross-entropies, in [0, 1).
        ema_decay: of the student's average.
        device: where training goes on.
        image_size: (H, W) of the training images.
        ordinary: crop and mirror of the training images.
        max_steps: student steps in all.
        steps_per_epoch: student steps in a pass over the data; math.inf where it is not known.
    """

    @property
    def policies(self) -> Sequence[Policy]: ...

    @property
    def second_policies(self) -> Sequence[Policy] | None: ...

    @property
    def label_smoothing(self) -> float: ...

    @property
    def ema_decay(self) -> float: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def ordinary(self) -> CropFlip: ...

    @property
    def max_steps(self) -> int: ...

    @property
    def steps_per_epoch(self) -> float: ...

    def options(self, kind: type[Options]) -> Options:
        """The options of a method: an instance of one of its `configs`."""
        ...

    def teachers(self, student: Classifier) -> Sequence[Teacher]:
        """All teachers, frozen, on their devices; at least one."""
        ...

    def distilled(self, student: Classifier) -> Sequence[Teacher]:
        """The teachers that are distilled from; at least one."""
        ...

    def peers(self, student: Classifier) -> list[Classifier]:
        """The networks that train beside the student; at least one."""
        ...
