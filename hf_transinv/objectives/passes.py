"""What a turn costs at least: passes through networks that its method cannot do without.

    F_s, F_t   one image forward through the student, through a teacher
    backward   2 F where weights and input get a gradient, 1 F where the input alone does

So plain training costs 3 F_s per image. Each method states its own numbers on its class (`Objective.passes`).
"""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Passes:
    """Forward passes through the student and through teachers, for so many images.

    Attributes:
        student: F_s.
        teacher: F_t.
        images: the student's images that they are for.
    """

    student: int
    teacher: int = 0
    images: int = 1

    @property
    def total(self) -> Fraction:
        """Forward passes for each of the student's images, with F_t = F_s."""
        return Fraction(self.student + self.teacher, self.images)

    @property
    def bound(self) -> float:
        """Multiples of plain training, 3 F_s per image, with F_t = F_s."""
        return (self.student + self.teacher) / (3 * self.images)

    def __str__(self) -> str:
        parts = [f"{count} {name}" for count, name in ((self.student, "F_s"), (self.teacher, "F_t")) if count]
        total = " + ".join(parts)
        return total if self.images == 1 else f"({total}) / {self.images}"
