"""A run as recorded in run.json, with types: what cards and tables are made from.

`record.RunRecord` writes the file; `read_run` reads it and says which field is wrong, where one is. What was not
recorded has the field's default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import timm

from hf_transinv.augment.magnitudes import ParameterRange
from hf_transinv.config import OutputConfig
from hf_transinv.data.embedded import EMBEDDED_NAMES
from hf_transinv.errors import InputError
from hf_transinv.evaluation.result import Result
from hf_transinv.formats.typed_json import read_as
from hf_transinv.hub.recorded_row import Extension, Learned, MeasuredWhileTraining
from hf_transinv.hub.short_names import short_name
from hf_transinv.training.averaging import AVERAGE


@dataclass(frozen=True)
class Config:
    """The fields of a run's configuration that are read from its record; see the dataclasses of the recipes."""

    dataset: str
    dataset_config: str | None = None
    dataset_revision: str | None = None
    student: str | None = None
    student_init: str | None = None
    teachers: tuple[str, ...] = ()
    primitives: tuple[str, ...] = ()
    corruption: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    clean_share: float | None = None
    label_noise: float = 0.0
    batch_size: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    linear_probe_share: float = 0.0
    interpolate: float | None = None
    seed: int | None = None
    output_dir: str | None = None
    license: str = OutputConfig.license


@dataclass(frozen=True)
class Student:
    """The network that was trained.

    Attributes:
        library: timm or transformers.
        architecture: as the library calls it.
        is_own_architecture: whether this package registers it with timm; also True where nothing is known.
        num_parameters: of the network.
        gmacs: multiply-adds of one image, in 1e9.
        num_classes: of its answer.
        label_names: of the classes, the first few where there are many; empty where they have no names.
        input_size: (h, w) in pixels.
        mean: of each channel, for pixels in [0, 1].
        std: the same.
        base_model: Hub id of the repository whose weights it started from.
        ema_decay: of the average over its training that its weights are; None: they are those at its end.
    """

    library: str = "timm"
    architecture: str | None = None
    is_own_architecture: bool = True
    num_parameters: int | None = None
    gmacs: float | None = None
    num_classes: int | None = None
    label_names: tuple[str, ...] = ()
    input_size: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    base_model: str | None = None
    ema_decay: float | None = None


@dataclass(frozen=True)
class Dataset:
    """The data.

    Attributes:
        name: Hub id, or the last part of a local folder.
        kind: hub, local or embedded; None: not known.
        train_rows: training images; None for a stream that does not say.
        eval_rows: images it was evaluated on.
        eval_split: their split.
    """

    name: str
    kind: str | None
    train_rows: int | None
    eval_rows: int | None
    eval_split: str | None


@dataclass(frozen=True)
class Teacher:
    """A teacher.

    Attributes:
        name: as it was given, the last part of a local folder, or "ema" for the student's own average.
        hub_id: its repository on the Hub.
        num_classes: of its answer.
        library: timm or transformers.
        architecture: as the library calls it.
        trained_on: corruptions that it saw in training, where its record says so.
        ema_decay: of the student's own average.
    """

    name: str
    hub_id: str | None
    num_classes: int | None = None
    library: str | None = None
    architecture: str | None = None
    trained_on: tuple[str, ...] | None = None
    ema_decay: float | None = None


@dataclass(frozen=True)
class Row:
    """One trained network.

    Attributes:
        results: of its evaluation.
        steps: of its optimizer.
        images_seen: training images it was shown, repeats counted.
        images_shown: versions of training images that it answered to in its own turns; None: not recorded.
        images_distinct: the images of its batches, of which they are versions; None: not recorded.
        train_seconds: of training alone.
        images_skipped: training images that could not be decoded.
        learned: of its augmentation.
        warnings: what the training noticed.
        kin: corruptions that its augmentations imitate, each with the reason; None: not recorded.
        validation: how it was measured while it trained; None: it was not.
    """

    results: Result
    steps: int | None = None
    images_seen: int | None = None
    images_shown: int | None = None
    images_distinct: int | None = None
    train_seconds: float | None = None
    images_skipped: int = 0
    learned: Learned = field(default_factory=Learned)
    warnings: tuple[str, ...] = ()
    kin: dict[str, str] | None = None
    validation: MeasuredWhileTraining | None = None


@dataclass(frozen=True)
class Hardware:
    """The machine, and how the run used it; None: not recorded."""

    cpu_cores: int | None = None
    machine: str | None = None
    accelerator: str | None = None
    accelerators: int | None = None
    device: str | None = None
    processes: int | None = None
    mixed_precision: str = "no"


@dataclass(frozen=True)
class Run:
    """A run that has results.

    Attributes:
        recipe: which one.
        config: what it was started with.
        rows: all networks, by name.
        main_row: name of the one that is published.
        name: of the output folder.
        command: the command line.
        versions: of packages, by name.
        hardware: the machine.
        commit: of this library.
        objective: what the student minimised.
        task: the objective that an augmentation was learned against.
        policies: fixed augmentations, by name.
        student: the main row's network.
        dataset: the data.
        teachers: in the order of what was learned for them.
        magnitudes: for each teacher: primitive -> its parameters; empty where none were learned.
        figures: paths below the output folder.
        citations: BibTeX.
        extensions: each time that it was given more steps than it was started with.
    """

    recipe: str
    config: Config
    rows: dict[str, Row]
    main_row: str = ""
    name: str = ""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: Hardware = Hardware()
    commit: str | None = None
    objective: str = "supervised"
    task: str = ""
    policies: tuple[str, ...] = ()
    student: Student = Student()
    dataset: Dataset = Dataset("", None, None, None, None)
    teachers: tuple[Teacher, ...] = ()
    magnitudes: tuple[dict[str, tuple[ParameterRange, ...]], ...] = ()
    figures: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    extensions: tuple[Extension, ...] = ()

    @property
    def main(self) -> Row:
        """The row that is published."""
        return self.rows[self.main_row]

    @property
    def baselines(self) -> list[str]:
        """The rows that were trained for comparison: all but the main one and those of its average and its peers."""
        own = self.main_row.removesuffix(f", {AVERAGE}")
        return [name for name in self.rows if name != own and not name.startswith(f"{own}, ")]

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Corruptions of the benchmark that the student saw in training: drawn at random, or as primitives."""
        fixed = (name.partition(":")[0] for name in self.config.primitives if ":" in name)
        return tuple(dict.fromkeys((*self.config.corruption, *fixed)))

    @property
    def unrelated(self) -> list[str]:
        """The measured corruptions that no row's augmentation imitates (see `augment.kin`); empty if not known."""
        known = [row.kin for row in self.rows.values() if row.kin is not None]
        kin = {name for found in known for name in found}
        return (
            [name for name in self.main.results.corruptions if name not in kin] if len(known) == len(self.rows) else []
        )

    @property
    def methods(self) -> list[str]:
        """The objectives that made the student, the task first; without plain supervised training."""
        names = dict.fromkeys((self.task or self.objective, self.objective))
        return [name for name in names if name != "supervised"]

    @property
    def start_teacher(self) -> Teacher | None:
        """The teacher whose weights the student started from."""
        start, _, index = (self.config.student_init or "").partition(":")
        return self.teachers[int(index) - 1] if start == "teacher" else None


def read_run(content: Mapping[str, Any]) -> Run:
    """Read the content of run.json, of this version or an earlier one.

    Raises:
        InputError: the run has no results yet, a field is missing or of another type, or the fields do not fit
            together.
    """
    if not content.get("rows"):
        raise InputError(f"run.json of {content.get('recipe', 'this run')!r} has no results yet: finish the run first")
    run = _completed(read_as(Run, content, "run.json"), content)
    _check(run)
    return run


def _completed(run: Run, content: Mapping[str, Any]) -> Run:
    """What the record does not say of data, student and teachers and the configuration does.

    Early records describe none of the three, and have the main row first. Teachers that judged nothing, and only gave
    the student its first weights, are described in none.
    """
    config, student = run.config, run.student
    kind = "embedded" if config.dataset in EMBEDDED_NAMES else None
    dataset = run.dataset if "dataset" in content else Dataset(short_name(config.dataset), kind, None, None, None)
    name = (config.student or "").partition(".")[0]
    if "student" not in content and config.student_init == "scratch" and timm.is_model(name):
        student = Student(architecture=name, is_own_architecture=is_own_architecture(name))
    teachers = run.teachers or tuple(Teacher(short_name(given), None) for given in config.teachers)
    first = next(iter(run.rows))
    return replace(run, dataset=dataset, student=student, teachers=teachers, main_row=run.main_row or first)


def _check(run: Run) -> None:
    """Raises InputError where fields do not fit together."""
    if run.main_row not in run.rows:
        raise InputError(f"run.json.main_row: expected one of rows, found {run.main_row!r}")
    count, learned = len(run.teachers), run.main.learned
    start, _, index = (run.config.student_init or "").partition(":")
    if start == "teacher" and index not in map(str, range(1, count + 1)):
        raise InputError(f"run.json.config.student_init: expected teacher:1 to teacher:{count}, found {start}:{index}")
    for name, entries in (("p", learned.p), ("q", learned.q), ("r", learned.r), ("magnitudes", run.magnitudes)):
        if count and entries and len(entries) != count:
            raise InputError(f"run.json: {name} has {len(entries)} entries for {count} teachers")
    if any(len(p) != len(run.config.primitives) for p in learned.p):
        raise InputError(f"run.json: p has not one entry for each of the {len(run.config.primitives)} primitives")
    if bool(learned.p) != bool(learned.q):
        raise InputError("run.json: p and q are learned together, and one of them is missing")


def is_own_architecture(name: str) -> bool:
    """Whether importing this package registers the timm architecture."""
    return timm.model_entrypoint(name).__module__.partition(".")[0] == "hf_transinv"
