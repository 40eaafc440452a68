"""What a turn costs at least: passes through networks that its method cannot do without.

    F_s, F_t   one image forward through the student, through a teacher
    backward   2 F where weights and input get a gradient, 1 F where the input alone does

So plain training costs 3 F_s per image. Each method states its own numbers on its class (`Objective.passes`).
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self


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

    @classmethod
    def per_image(cls, student: Fraction, teacher: Fraction) -> Self:
        """Passes for one image, in whole numbers for as few images as have them."""
        images = math.lcm(student.denominator, teacher.denominator)
        return cls(int(student * images), int(teacher * images), images)

    def __add__(self, other: "Passes") -> "Passes":
        (mine, judged), (more, more_judged) = self._each, other._each
        return Passes.per_image(mine + more, judged + more_judged)

    def __mul__(self, times: Fraction | int) -> "Passes":
        student, teacher = self._each
        return Passes.per_image(student * times, teacher * times)

    @property
    def _each(self) -> tuple[Fraction, Fraction]:
        return Fraction(self.student, self.images), Fraction(self.teacher, self.images)

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
