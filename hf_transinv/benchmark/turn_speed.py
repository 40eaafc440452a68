"""What turns cost: every method's beside plain training, and beside the least that they can cost (`bounds`)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from accelerate import Accelerator

from hf_transinv.benchmark.bounds import passes_of_cycle
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import Entry, Runner, entries
from hf_transinv.benchmark.synthetic import synthetic_split
from hf_transinv.benchmark.timing import Spread
from hf_transinv.formats.markdown import table
from hf_transinv.formats.terminal import stages
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Turn

_BATCHES = 4  # in the data set: turns read from memory what they would read in a run
ALL = "all"
NOTE = """\
images/s: of the student's images, in an augmentation turn of those of that turn. time / plain: seconds per image over
those of plain training in the same round, median and range. passes: through student (F_s) and teacher (F_t) for an
image; a backward pass counts 2, or 1 if it is to the input alone. bound: passes over the 3 F_s of plain training, with
F_t = F_s. bound reached: bound over time / plain; above 100 % where passes that nothing is kept of are shorter than
those that a backward pass follows."""


@dataclass(frozen=True)
class TurnRow:
    """One kind of turn of one run, or all of its turns for each image of the student's.

    Attributes:
        run: the method.
        turn: who plays; "all": the whole cycle, its augmentation turns shared out over the student's images.
        images_per_second: median of the rounds.
        ratio: seconds per image over plain training's.
        passes: through networks, per image.
        bound: the least that the ratio can be.
        reached: bound over ratio.
        peak_memory: bytes, on a GPU.
    """

    run: str
    turn: str
    images_per_second: float
    ratio: Spread
    passes: str
    bound: float
    reached: float
    peak_memory: int | None


def section(config: BenchmarkConfig, accelerator: Accelerator) -> tuple[str, dict]:
    """The table as Markdown, and its numbers."""
    rows = measure(config, accelerator, entries(config))
    return f"{markdown(rows)}\n\n{NOTE}", {"turns": [asdict(row) for row in rows]}


def measure(config: BenchmarkConfig, accelerator: Accelerator, runs: Sequence[Entry]) -> list[TurnRow]:
    """All rows of the runs, of which the first is plain training."""
    size, images = config.image_size, _BATCHES * config.batch_size
    split = synthetic_split(images, size, config.num_classes, config.seed, accelerator.device)
    runners = [Runner.start(entry, config, accelerator, split) for entry in stages(runs, "turns, warming up", "run")]
    for _ in stages(range(config.rounds), "turns", "round"):
        for runner in runners:
            runner.rounds.append(runner.take_turns(runner.turns_a_round))
    accelerator.free_memory()
    plain = [seconds_an_image(played, config.batch_size) for played in runners[0].rounds]
    return [
        row
        for runner in runners
        for row in rows_of(
            runner.entry.title, runner.passes, runner.rounds, plain, config.batch_size, runner.peak_memory
        )
    ]


def seconds_an_image(played: Sequence[tuple[Turn, float]], batch_size: int, turn: Turn | None = None) -> float:
    """Seconds of one kind of turn for each of its images, or of all turns for each of the student's.

    Args:
        played: who played and how many seconds it took.
        batch_size: images of each turn.
        turn: the kind; None: all.
    """
    if turn is None:
        return sum(lap for _, lap in played) / (batch_size * sum("student" in who for who, _ in played))
    laps = [lap for who, lap in played if who == turn]
    return sum(laps) / (batch_size * len(laps))


def rows_of(
    run: str,
    passes: Mapping[Turn, Passes],
    rounds: Sequence[Sequence[tuple[Turn, float]]],
    plain: Sequence[float],
    batch_size: int,
    peak_memory: Mapping[Turn, int],
) -> list[TurnRow]:
    """A row for each kind of turn, if there are several, and one for all.

    Args:
        run: its title.
        passes: of each kind of turn.
        rounds: whole cycles: who played and how many seconds it took.
        plain: seconds per image of plain training in the same rounds.
        batch_size: images of each turn.
        peak_memory: bytes of each kind of turn; empty where it is not known.
    """
    kinds = list(dict.fromkeys(who for who, _ in rounds[0]))

    def row(turn: Turn | None, name: str, own: Passes, memory: int | None) -> TurnRow:
        seconds = [seconds_an_image(played, batch_size, turn) for played in rounds]
        ratio = Spread.of([mine / other for mine, other in zip(seconds, plain, strict=True)])
        speed = 1 / Spread.of(seconds).median
        return TurnRow(run, name, speed, ratio, str(own), own.bound, own.bound / ratio.median, memory)

    of_each = [row(kind, ", ".join(kind), passes[kind], peak_memory.get(kind)) for kind in kinds]
    if len(kinds) == 1:
        return of_each
    of_all = passes_of_cycle(passes, [who for who, _ in rounds[0]])
    return [*of_each, row(None, ALL, of_all, max(peak_memory.values(), default=None))]


def markdown(rows: Sequence[TurnRow]) -> str:
    """One line per row."""
    with_memory = any(row.peak_memory is not None for row in rows)
    header = ["", "turn", "images/s", "time / plain", "smallest to largest", "passes", "bound", "bound reached"]
    lines = []
    for row in rows:
        spread = f"{row.ratio.low:.2f} to {row.ratio.high:.2f}"
        measured = [f"{row.images_per_second:,.0f}", f"{row.ratio.median:.2f}", spread]
        line = [row.run, row.turn, *measured, row.passes, f"{row.bound:.2f}", f"{row.reached:.0%}"]
        peak = "–" if row.peak_memory is None else f"{row.peak_memory / 2**20:,.0f} MiB"
        lines.append([*line, peak] if with_memory else line)
    return table([*header, "peak memory"] if with_memory else header, lines, numeric_from=2)
