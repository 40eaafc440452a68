"""What a training tells a tracker, by the names under which it is shown.

    train/loss, train/learning_rate, ...         of the student, and of the loop
    augmentation/total, peer/total, ...          of other players, as in metrics.jsonl
    p/TEACHER/PRIMITIVE, q/TEACHER, r/TEACHER    what is learned; teachers as in the lines of the progress
    validation/top1, validation/loss, ...        measured while training

metrics.jsonl has the same numbers under the names of the code: "student/total", "p": [[...]], "eval/top1".
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_OF_STUDENT, _MEASURED = "student/", "eval/"


def scalars(
    line: Mapping[str, Any], learned: Mapping[str, Any], teachers: Sequence[str], primitives: Sequence[str]
) -> dict[str, float]:
    """One line of metrics as scalars.

    Args:
        line: numbers by name, the step among them.
        learned: what the objective observes: numbers, or lists of an entry per teacher.
        teachers: their titles.
        primitives: their names, in the order of the entries of p.
    """
    own = {_name(name): value for name, value in line.items() if name != "step"}
    return own | _learned(learned, _distinct(teachers), primitives)


def _name(name: str) -> str:
    if name.startswith(_MEASURED):
        return f"validation/{name.removeprefix(_MEASURED)}"
    if name == f"{_OF_STUDENT}total":
        return "train/loss"
    return f"train/{name.removeprefix(_OF_STUDENT)}" if name.startswith(_OF_STUDENT) or "/" not in name else name


def _learned(learned: Mapping[str, Any], teachers: Sequence[str], primitives: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in learned.items():
        if not isinstance(value, list):
            found[name] = value
            continue
        places = _places(len(value), teachers)
        for place, entry in zip(places, value, strict=True):
            if isinstance(entry, list):
                inner = _places(len(entry), primitives) if len(entry) > 1 else [""]
                names = zip(inner, entry, strict=True)
                found |= {f"{name}/{place}/{one}".rstrip("/"): number for one, number in names}
            else:
                found[f"{name}/{place}"] = entry
    return found


def _places(count: int, names: Sequence[str]) -> Sequence[str]:
    """The names of the entries of a list, or their numbers from 1 where it has not one for each name."""
    return names if count == len(names) else [str(place) for place in range(1, count + 1)]


def _distinct(teachers: Sequence[str]) -> list[str]:
    """Teachers' titles; those of a teacher that is named twice get a number."""
    count = Counter(teachers)
    return [name if count[name] == 1 else f"{name}_{place}" for place, name in enumerate(teachers, 1)]
