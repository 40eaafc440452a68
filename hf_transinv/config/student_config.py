"""The student of a run and its teachers."""

from dataclasses import dataclass
from typing import Any

from hf_transinv.config.checks import at_least, check_choices, choice, did_you_mean
from hf_transinv.config.model_args import parse_model_args
from hf_transinv.errors import InputError


@dataclass
class StudentConfig:
    """The student and its teachers.

    Attributes:
        student: any timm architecture, Hub id or local folder; default with student_init teacher:K: that teacher's.
        student_init: scratch, pretrained, or teacher:K (the weights of teacher K, counted from 1, with a new head).
        teachers: Hub ids, local folders, timm names or ema (the student's own average), any number, in any mix.
        ema_decay: of the ema teacher.
        teacher_device: device of the frozen teachers; default: the student's; cpu: the host's, when they do not fit
            beside the student (slow). The ema teacher stays with the student.
        student_size: side of the images that the networks of the student and of peers see, in pixels; default: their
            checkpoints'.
        teacher_size: the same for the teachers: one for all, or one for each; ema has none, it follows the student.
        model_args: arguments of the student's network, key=value: of timm.create_model (drop_rate=0.1
            drop_path_rate=0.1), or fields of a transformers config; also of a peer like the student.
        grad_checkpointing: compute the activations of the student and of peers again in the backward pass, instead of
            keeping them: less memory, more time, the same gradients.
    """

    student: str | None = None
    student_init: str = choice("scratch", ("scratch", "pretrained", "teacher:K"), is_closed=False)
    teachers: tuple[str, ...] = ()
    ema_decay: float = 0.999
    teacher_device: str | None = choice(None, ("cpu",))
    student_size: int | None = None
    teacher_size: tuple[int, ...] = ()
    model_args: tuple[str, ...] = ()
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        start, _, index = self.student_init.partition(":")
        if start == "teacher":
            if index not in map(str, range(1, len(self.teachers) + 1)):
                raise InputError(
                    f"student_init {self.student_init!r}: expected teacher:K with K from 1 to the number of teachers "
                    f"({len(self.teachers)})"
                )
            if self.teachers[int(index) - 1] == "ema":
                raise InputError(f"student_init {self.student_init!r}: that teacher is the student's own average")
            if self.student is not None:
                raise InputError(
                    "give student or student_init teacher:K, not both: the teacher brings its architecture"
                )
        elif self.student_init not in ("scratch", "pretrained"):
            near = did_you_mean(self.student_init, ("scratch", "pretrained", "teacher:1"))
            raise InputError(f"student_init {self.student_init!r}: expected scratch, pretrained or teacher:K{near}")
        elif self.student is None:
            raise InputError("no student given: name a timm architecture, e.g. --student wrn16_2_cifar")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), given {self.ema_decay}")
        if self.student_size is not None:
            at_least("student_size", self.student_size, 8)
        for side in self.teacher_size:
            at_least("teacher_size", side, 8)
        self._check_teacher_sizes()
        parse_model_args(self.model_args)

    def _check_teacher_sizes(self) -> None:
        """Raises InputError where it is not known which teacher has which size."""
        own, given = [name for name in self.teachers if name != "ema"], len(self.teacher_size)
        if given and not own:
            raise InputError("teacher_size: there is no teacher but the student's average, which has the student's")
        if given not in (0, 1, len(own)):
            raise InputError(
                f"teacher_size gives {given} sizes for {len(own)} teachers (ema has none): expected one, or one for "
                "each"
            )
        if given > 1 and any(
            self.teacher_sizes[name] != side for name, side in zip(own, self.teacher_size, strict=True)
        ):
            raise InputError("teacher_size gives two sizes to a teacher that is named twice: expected one")

    @property
    def network_name(self) -> str:
        """The name by which the student's network is opened."""
        start, _, index = self.student_init.partition(":")
        name = self.teachers[int(index) - 1] if start == "teacher" else self.student
        assert name is not None  # __post_init__ refuses it
        return name

    @property
    def teacher_sizes(self) -> dict[str, int]:
        """The side that a teacher's network sees, in pixels, by the teacher's name; without those that have none."""
        own = [name for name in self.teachers if name != "ema"]
        sides = self.teacher_size * len(own) if len(self.teacher_size) == 1 else self.teacher_size
        return dict(zip(own, sides, strict=True)) if sides else {}

    @property
    def network_options(self) -> dict[str, Any]:
        """What the student's network is opened with, by the arguments of `open_classifier`."""
        return {**self.shared_options, "model_args": parse_model_args(self.model_args)}

    @property
    def shared_options(self) -> dict[str, Any]:
        """`network_options` without those of one architecture: for peers as well."""
        return {"input_size": self.student_size, "grad_checkpointing": self.grad_checkpointing}
