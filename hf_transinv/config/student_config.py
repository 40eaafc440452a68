"""The student of a run and its teachers."""

from dataclasses import dataclass

from hf_transinv.config.checks import one_of
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
    """

    student: str | None = None
    student_init: str = "scratch"
    teachers: tuple[str, ...] = ()
    ema_decay: float = 0.999
    teacher_device: str | None = None

    def __post_init__(self) -> None:
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
            raise InputError(f"student_init {self.student_init!r}: expected scratch, pretrained or teacher:K")
        elif self.student is None:
            raise InputError("no student given: name a timm architecture, e.g. --student wrn16_2_cifar")
        if self.teacher_device is not None:
            one_of("teacher_device", self.teacher_device, ("cpu",))
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), given {self.ema_decay}")
