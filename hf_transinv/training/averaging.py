"""The student's exponential moving average as a result of the training: measured, and exported."""

from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.objective import Objective

AVERAGE = "EMA"
"""Name of the average's row: "ROW, EMA"."""


def keep_average(objective: Objective, decay: float) -> Objective:
    """Let an objective keep the average of its student.

    One that the method itself moves (an `ema` teacher, TeachAugment's) is taken for both: it is the same.

    Args:
        objective: before its training.
        decay: as of `EMATeacher`.

    Returns:
        The objective.
    """
    student = next(iter(objective.students.values()))
    moved = (module for module in objective.extra_state().values() if isinstance(module, EMATeacher))
    objective.average = next(moved, None) or EMATeacher(student, decay)
    return objective


def own_average(objective: Objective) -> dict[str, EMATeacher]:
    """The average by its name in checkpoints, where the Trainer has to move it; empty where the method does."""
    average = objective.average
    if average is None or any(module is average for module in objective.extra_state().values()):
        return {}
    return {"student_average": average}


def kept(objective: Objective) -> dict[str, Teacher]:
    """What the run keeps beside the method, by its name in checkpoints: the average, and the start."""
    start = objective.interpolated_from
    return {**own_average(objective), **({} if start is None else {"student_start": start})}


def measured(objective: Objective) -> dict[str, Classifier]:
    """The networks that are evaluated, by name: what came out of the training, and the average."""
    averages = {} if objective.average is None else {AVERAGE: objective.average.classifier}
    return {**objective.students, **averages}


def exported(objective: Objective, ema: str) -> Classifier:
    """The network that is published as the student: itself, or its average where `TrainConfig.ema` is "instead"."""
    if ema == "instead" and objective.average is not None:
        return objective.average.classifier
    return next(iter(objective.students.values()))
