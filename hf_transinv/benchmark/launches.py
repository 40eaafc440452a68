"""What turns give to a GPU: every method's kernels beside plain training's, its copies from the host and its waits.

They are counted, not timed, so two runs give the same numbers, on any machine (`launch_count`, `pretended_device`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from accelerate import Accelerator

from hf_transinv.augment import ops, wide_ops
from hf_transinv.benchmark.launch_count import Count
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.pretended_device import DEVICE, pretended_device
from hf_transinv.benchmark.runners import Entry, build_objective, build_trainer, cycle_of, entries
from hf_transinv.benchmark.synthetic import synthetic_split
from hf_transinv.formats.markdown import table
from hf_transinv.formats.terminal import stages
from hf_transinv.objectives.turns import Turn

_BATCHES = 4  # in the data set
_INNER_STEPS = 2  # the student's turn after the augmentation's, which reads what that has changed, and another
NOTE = """\
Counted as for CUDA, in float32 and not compiled; of several turns of a kind, the largest numbers. kernels: aten calls
on the device that are no views, forward, backward and optimizer; a foreach call is one. as loops: the same, a foreach
call counted once per tensor. copies: from the host to the device. waits: of the host for the device; a copy without
non_blocking is one, too. The JSON file says where each copy and wait is."""


@dataclass(frozen=True)
class LaunchRow:
    """One kind of turn of one run.

    Attributes:
        run: the method.
        turn: who plays.
        kernels: aten calls, a foreach call is one.
        ratio: kernels over those of plain training.
        loop_kernels: aten calls, a foreach call is as many as its tensors.
        loop_ratio: likewise over plain training's.
        copies: from the host to the device.
        waits: of the host for the device.
        places: where the copies and waits are, with the number in one turn.
    """

    run: str
    turn: str
    kernels: int
    ratio: float
    loop_kernels: int
    loop_ratio: float
    copies: int
    waits: int
    places: dict[str, int]


def section(config: BenchmarkConfig, accelerator: Accelerator) -> tuple[str, dict]:
    """The table as Markdown, and its numbers."""
    rows = measure(config, accelerator)
    return f"{markdown(rows)}\n\n{NOTE}", {"launches": [asdict(row) for row in rows]}


def measure(config: BenchmarkConfig, accelerator: Accelerator) -> list[LaunchRow]:
    """All rows; the first is plain training."""
    config = replace(config, inner_steps=_INNER_STEPS)
    counted = [
        (entry, turn, largest(counts))
        for entry in stages(entries(config), "launches", "run")
        for turn, counts in count_turns(entry, config, accelerator).items()
    ]
    plain = counted[0][2]
    return [row_of(entry, turn, count, plain) for entry, turn, count in counted]


def count_turns(entry: Entry, config: BenchmarkConfig, accelerator: Accelerator) -> dict[Turn, list[Count]]:
    """What each turn of a cycle gives to the device, by who plays; a cycle before it has made what stays."""
    config = replace(config, compile=False)
    images, size = _BATCHES * config.batch_size, config.image_size
    counts: dict[Turn, list[Count]] = {}
    for constants in (ops, wide_ops):
        constants.forget_constants()  # of a device that was pretended before
    with pretended_device(accelerator) as counter:
        split = synthetic_split(images, size, config.num_classes, config.seed, DEVICE)
        objective = build_objective(entry, config, DEVICE)
        trainer = build_trainer(objective, config, accelerator, split)
        cycle = cycle_of(entry, config, objective)
        for turn in range(2 * cycle):
            players = objective.next_turn(trainer.turn)
            counter.take()
            trainer.take_turn()
            if turn >= cycle:
                counts.setdefault(players, []).append(counter.take())
    accelerator.free_memory()
    return counts


def largest(counts: Sequence[Count]) -> Count:
    """The largest of each number."""
    places: Counter[str] = Counter()
    for count in counts:
        places |= count.places
    numbers = ("kernels", "loop_kernels", "copies", "waits")
    return Count(**{name: max(getattr(count, name) for count in counts) for name in numbers}, places=places)


def row_of(entry: Entry, turn: Turn, count: Count, plain: Count) -> LaunchRow:
    """A row beside plain training."""
    ratio, loop_ratio = count.kernels / plain.kernels, count.loop_kernels / plain.loop_kernels
    kernels = (count.kernels, ratio, count.loop_kernels, loop_ratio)
    places = dict(sorted(count.places.items()))
    return LaunchRow(entry.title, ", ".join(turn), *kernels, count.copies, count.waits, places)


def markdown(rows: Sequence[LaunchRow]) -> str:
    """One line per row."""
    header = ["", "turn", "kernels", "/ plain", "as loops", "/ plain", "copies", "waits"]
    lines = [
        [
            *(row.run, row.turn, f"{row.kernels:,}", f"{row.ratio:.2f}", f"{row.loop_kernels:,}"),
            *(f"{row.loop_ratio:.2f}", str(row.copies), str(row.waits)),
        ]
        for row in rows
    ]
    return table(header, lines, numeric_from=2)
