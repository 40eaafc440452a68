"""How long each row of a comparison trains, so that all have the same of what `--budget` names.

    images    as many images, in as many steps, as every other row: nothing is decided here
    passes    as many passes through networks as the plain row: steps = N c_plain / c_row, rounded down
    seconds   as much time as the plain row: the same, with c in seconds

N is the number of steps that the configuration gives, and so that of the plain row of the same group; c is what a step
costs, the augmentation's turns between the student's included. The schedule of a row ends with its last step.

Passes are those that the method states (`Objective.passes_of`): a forward pass counts 1, a backward pass as in
`objectives.passes`, whichever network it goes through. Seconds are measured before anything is trained: each row takes
turns with new networks, which are thrown away; the median of some rounds counts. The plain row is timed in the same
minutes, so both feel the same machine. What was decided is in run.json, and holds for all seeds and when the
comparison is resumed.
"""

import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from hf_transinv.benchmark.timing import Stopwatch
from hf_transinv.comparison.plan import Comparison, Row
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import agree
from hf_transinv.experiment.session import Session
from hf_transinv.objectives.objective import Objective
from hf_transinv.training.trainer import Trainer

_ROUNDS, _SECONDS = 3, 2.0  # at least, of the timed turns
_UNITS = {"passes": "passes_per_image", "seconds": "seconds_per_step"}

Budget = dict[str, Any]
"""The entry of run.json: kind, plain, and rows: label -> steps, and what a step costs."""


def decide(
    comparison: Comparison, session: Session, before: Mapping[str, Any], build: Callable[[Row], Objective]
) -> Budget:
    """The steps of every row that is to run; all processes together.

    Args:
        comparison: the rows, and the budget.
        session: data and device.
        before: run.json of the comparison that is resumed, or nothing: what it has decided stays.
        build: the objective of a row, to which it sets the session.

    Raises:
        InputError: another row was the plain one before, or a row cannot be built.
    """
    kind, plain = comparison.chosen.budget, comparison.plain
    if kind == "images":
        return {"kind": kind}
    decided = read_budget(before, kind, plain)
    for group in dict.fromkeys(row.group for row in comparison.chosen_rows):
        new = [row for row in comparison.chosen_rows if row.group == group and row.label not in decided]
        if not new:
            continue
        (standard,) = (row for row in comparison.rows if (row.group, row.title) == (group, plain))
        cost_of_plain = _cost(kind, session, build(standard), standard)
        steps = session.steps()[0]
        for row in new:
            cost = cost_of_plain if row is standard else _cost(kind, session, build(row), row)
            decided[row.label] = {"steps": steps_within(steps, cost_of_plain, cost), _UNITS[kind]: float(cost)}
    return {"kind": kind, "plain": plain, "rows": decided}


def read_budget(before: Mapping[str, Any], kind: str, plain: str | None) -> dict[str, Any]:
    """What is decided of each row already, by its label.

    Args:
        before: run.json of the comparison that is resumed, or nothing.
        kind: of the budget now.
        plain: title of the plain row now.

    Raises:
        InputError: it was another budget, or the record is damaged.
    """
    known = before.get("budget", {"kind": kind, "plain": plain, "rows": {}})
    rows = known.get("rows") if isinstance(known, dict) else None
    if not isinstance(rows, dict) or not all(
        isinstance(row, dict) and type(row.get("steps")) is int for row in rows.values()
    ):
        raise InputError("run.json is damaged: budget has kind, plain and, under rows, the steps of each")
    if (known.get("kind"), known.get("plain")) != (kind, plain):
        raise InputError(
            f"the budget was {known.get('kind')} of the row {known.get('plain')!r}, is {kind} of {plain!r}: a "
            "comparison is resumed with the one it was started with"
        )
    return dict(rows)


def described(budget: Budget) -> list[str]:
    """What was decided, for the first screen: a line per row; none where all have the steps of the configuration."""
    return [
        f"budget      {budget['kind']} of {budget['plain']!r}: {decided['steps']:,} steps of {label!r}"
        for label, decided in budget.get("rows", {}).items()
    ]


def steps_within(steps: int, cost_of_plain: Fraction | float, cost: Fraction | float) -> int:
    """Steps of the given cost that come to no more than `steps` of the plain row; at least one."""
    return max(1, math.floor(steps * (cost_of_plain / cost)))


def passes_of_step(objective: Objective) -> Fraction:
    """Passes that a step of the student costs for each of its images: those of a cycle of turns, shared out."""
    steps = sum("student" in turn for turn in objective.turns)
    return sum((objective.passes_of(turn).total for turn in objective.turns), Fraction(0)) / steps


def seconds_of_step(trainer: Trainer) -> float:
    """Median seconds that a step of the student takes, turns of other players shared out; the networks are spoilt.

    The first cycle of turns counts only where the run has no second one.
    """
    turns, laps = trainer.objective.turns, list[float]()
    steps = sum("student" in turn for turn in turns)

    def is_enough() -> bool:
        is_over = trainer.step + steps > trainer.max_steps
        return is_over or (len(laps) > _ROUNDS and sum(laps[1:]) > _SECONDS)

    while not agree(trainer.accelerator, is_enough):
        watch = Stopwatch(trainer.accelerator.device)
        watch.mark()
        for _ in turns:
            trainer.take_turn()
        watch.mark()
        laps += watch.laps()
    if not laps:
        raise InputError(
            f"budget seconds: the {trainer.max_steps} steps of the plain row are fewer than a cycle of turns has "
            f"({steps}), so no step can be timed: train longer, or take budget passes"
        )
    return agree(trainer.accelerator, lambda: statistics.median(laps[1:] or laps) / steps)


def _cost(kind: str, session: Session, objective: Objective, row: Row) -> Fraction | float:
    if kind == "passes":
        return passes_of_step(objective)
    with tempfile.TemporaryDirectory() as folder:
        train = replace(session.train, linear_probe_share=0.0)  # the steps of the head alone are shorter
        trainer = session.trainer(row.label, objective, row.data.crop, row.data.flip, Path(folder), train)
        try:
            return seconds_of_step(trainer)
        finally:
            for feed in trainer.feeds.values():
                feed.close()
            session.accelerator.free_memory()  # otherwise it would keep the networks


def check_budget(kind: str, plain: str | None, rows: Sequence[Row], is_extended: bool) -> None:
    """Refuse, before anything is opened, a budget that cannot be kept.

    Raises:
        InputError: there is no plain row, the comparison is to be extended, or how many turns a method takes for a
            step is known only when it has taken them.
    """
    if kind == "images":
        return
    if plain is None:
        raise InputError(f"budget {kind} is what one of the rows needs: name that row, --plain TITLE")
    if is_extended:
        raise InputError(
            f"extend_to_steps gives all rows the same number of steps, and budget {kind} another to each: start a "
            "longer comparison"
        )
    for row in rows:
        if row.task.next_turn is not Objective.next_turn:
            raise InputError(
                f"row {row.label!r}: how many turns {row.task.title} takes for a step depends on what it measures, so "
                f"what a step costs is not known before: leave the row out, or take budget images"
            )
