"""Teachers: frozen classifiers whose logits are the reference. Gradients still pass to their input.

The EMA teacher is the student's own exponential moving average: theta' <- d theta' + (1 - d) theta after each student
step. d warms up, so that the untrained student is soon forgotten: d = min(decay, (1 + t) / (10 + t)), where t is the
number of updates before this one (as in TensorFlow's `ExponentialMovingAverage`). Buffers (BatchNorm statistics) are
averaged too.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier, open_classifier


class Teacher(nn.Module):
    """A Classifier that is never trained.

    Args:
        classifier: this object itself, not a copy, is frozen and put into eval mode.
        name: what to call it; None: the name by which it was opened.
    """

    def __init__(self, classifier: Classifier, name: str | None = None) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False)
        self.name = classifier.source if name is None else name
        self.eval()

    @property
    def num_classes(self) -> int:
        """Columns of the logits: the teacher's own label space."""
        return self.classifier.num_classes

    @property
    def label_names(self) -> list[str] | None:
        """One name per class; None where they are not known."""
        return self.classifier.label_names

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in eval mode whatever `mode` is: BatchNorm and dropout of a teacher never train."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, h, w] in [0, 1] -> logits [B, num_classes], differentiable with respect to the images.

        The teacher runs on its own device. Images are moved there, and logits back to the images' device.
        """
        return self.classifier(images.to(self.classifier.mean.device)).to(images.device)


class EMATeacher(Teacher):
    """A student's exponential moving average; call `update` after each of the student's steps.

    Args:
        student: copied, and left as it is.
        decay: limit of d, in [0, 1).

    Raises:
        InputError: the decay is outside [0, 1).
    """

    num_updates: Tensor

    def __init__(self, student: Classifier, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"The decay of the EMA teacher was {decay}; expected 0 <= decay < 1, for example 0.999.")
        average = copy.deepcopy(student)
        average.zero_grad(set_to_none=True)
        super().__init__(average, name="ema")
        self.decay = decay
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long, device=average.mean.device))

    @torch.no_grad()
    def update(self, student: Classifier) -> None:
        """One step towards `student` (unwrapped, on the same device); integer buffers are copied.

        A sharded student's weights are gathered first, by all processes together: the average itself is not sharded.
        """
        # (1 - d) stays a tensor: reading the count back would make the host wait for the device at every step.
        weight = (9.0 / (10.0 + self.num_updates.float())).clamp(min=1.0 - self.decay)
        newest = (new.full_tensor() if isinstance(new, DTensor) else new for new in _tensors(student))
        pairs = list(zip(_tensors(self.classifier), newest, strict=True))
        averages = [own for own, _ in pairs if own.is_floating_point()]
        step = torch._foreach_sub([new for own, new in pairs if own.is_floating_point()], averages)
        torch._foreach_mul_(step, weight)
        torch._foreach_add_(averages, step)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)
        self.num_updates += 1


@torch.no_grad()
def fault_of(teacher: Teacher, images: Tensor) -> str | None:
    """What is wrong with a teacher whose logits for images [B, 3, h, w] are not all finite; None: they are."""
    if teacher(images).isfinite().all():
        return None
    state = teacher.classifier.network.state_dict()
    spoilt = [name for name, x in state.items() if x.is_floating_point() and not x.isfinite().all()]
    answers = f"teacher {teacher.name} answers with numbers that are not finite"
    if spoilt:
        return f"{answers}, and so is its weight {spoilt[0]}: fetch its file again, or leave this teacher out"
    return (
        f"{answers}, and its weights are finite: it overflows. Launch with --mixed_precision bf16 or no, or leave "
        "this teacher out"
    )


def check_answers(teachers: Iterable[Teacher], images: Tensor) -> None:
    """Raises InputError when the logits of a teacher for images [B, 3, h, w] are not all finite."""
    for teacher in dict.fromkeys(teachers):
        fault = fault_of(teacher, images)
        if fault:
            raise InputError(fault)


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())


def build_teachers(
    names: Sequence[str],
    student: Classifier,
    ema_decay: float = 0.999,
    input_sizes: Mapping[str, int] | None = None,
) -> nn.ModuleList:
    """The panel of teachers.

    A name that occurs twice is one Teacher that occurs twice, so there is at most one EMATeacher to update.

    Args:
        names: of `open_classifier`, or "ema" for the student's own average.
        student: of which the average is taken.
        ema_decay: of the average.
        input_sizes: side of the images that a teacher's network sees, in pixels, by its name; the others see their
            checkpoint's, the average the student's.

    Returns:
        The teachers, in the order of `names`.

    Raises:
        InputError: no names, or one of them cannot be opened.
    """
    if isinstance(names, str) or not names:
        raise InputError(
            f"Teachers were given as {names!r}; expected a list of at least one name, for example ['ema']."
        )
    panel: dict[str, Teacher] = {}
    for name in dict.fromkeys(names):
        if name == "ema":
            panel[name] = EMATeacher(student, ema_decay)
        else:
            panel[name] = Teacher(open_classifier(name, input_size=(input_sizes or {}).get(name)))
    return nn.ModuleList(panel[name] for name in names)


def place_teachers(
    teachers: nn.ModuleList, device: torch.device, frozen_device: torch.device | str | None = None
) -> nn.ModuleList:
    """Moves the panel, in place.

    Args:
        teachers: of `build_teachers`.
        device: the student's, to which its average is moved.
        frozen_device: to which the other teachers are moved; None: the same.

    Returns:
        The panel.
    """
    for teacher in teachers:
        is_average = isinstance(teacher, EMATeacher)
        teacher.to(device if is_average or frozen_device is None else frozen_device)
    return teachers
