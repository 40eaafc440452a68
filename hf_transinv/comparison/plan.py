"""A comparison: one student, one data set, one schedule; one row per method, trained with several seeds.

    rows x groups x seeds = runs

The rows of a group share what differs between groups (a teacher, say); every row is in every group. `plan_reader`
reads a comparison from its YAML, `measures` and `table` say what it came to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_transinv.augment.learned import AugmentationConfig
from hf_transinv.augment.policies import CorruptionConfig
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig
from hf_transinv.config.checks import one_of
from hf_transinv.errors import InputError
from hf_transinv.experiment.methods import MethodConfig
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.registry import METHODS

CROP_FLIP = "crop + flip"
"""Title of the row to which the others' cost is relative, where no other is named."""


@dataclass
class CompareConfig:
    """Which part of a comparison runs.

    Attributes:
        seeds: every row is trained once with each.
        folds: of a cross-validation, 2 or more: every row is trained once without each fold of the training images,
            with the fold's number as its seed, and measured on it. They take the place of seeds; each has a folder.
        scale: which block of the YAML's scale is used; default: the first.
        rows: titles of the rows that run; default: all.
        groups: titles of the groups that run; default: all.
        plain: title of the row to which the others' cost is relative and which they are compared with, seed by seed;
            default: "crop + flip", where there is one.
        budget: what all rows have alike: images (and steps); passes (through networks, as many as the plain row
            makes, in as many steps as these come to); or seconds (what the plain row needs, by the time that steps of
            both take before training).
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    folds: int = 0
    scale: str | None = None
    rows: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    plain: str | None = None
    budget: str = "images"

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {list(self.seeds)}: expected at least one, each once, none negative")
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"folds must be 2 or more, or 0 for none, given {self.folds}")
        one_of("budget", self.budget, ("images", "passes", "seconds"))


@dataclass(frozen=True)
class Row:
    """One row of the table, in one group.

    Attributes:
        title: of the row.
        group: of its group; "" where there are none.
        overrides: the fields in which it differs, of its group and its own.
        data: the data, with its crop and flip.
        names: the student and its teachers.
        train: the loop; the seed is the run's.
        options: of the method, an instance of each of `methods.GROUPS`.
    """

    title: str
    group: str
    overrides: Mapping[str, Any]
    data: DataConfig
    names: StudentConfig
    train: TrainConfig
    options: tuple[Any, ...]

    @property
    def label(self) -> str:
        """Group and title."""
        return f"{self.group}: {self.title}" if self.group else self.title

    @property
    def network(self) -> str:
        """Name of the network whose architecture the student has."""
        start, _, index = self.names.student_init.partition(":")
        return self.names.teachers[int(index) - 1] if start == "teacher" else str(self.names.student)

    @property
    def task(self) -> type[Objective]:
        """What the student minimises."""
        return METHODS[next(one for one in self.options if isinstance(one, MethodConfig)).method]

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Corruptions of the benchmark that the student sees in training."""
        option: dict[type, Any] = {type(one): one for one in self.options}
        method = option[MethodConfig]
        is_corrupted = "corruption" in (*method.augment, *method.second_augment)
        named = option[CorruptionConfig].corruption if is_corrupted else ()
        primitives = option[AugmentationConfig].primitives if method.learned == "transinv" else ()
        return tuple(dict.fromkeys((*named, *(name.partition(":")[0] for name in primitives if ":" in name))))


@dataclass(frozen=True)
class RowName:
    """What the name of a row in run.json says, "LABEL, seed N" or "LABEL, seed N, PLAYER".

    Attributes:
        label: of the comparison's row.
        seed: that it was trained with.
        player: "" for the student, else the name of a network that trained beside it.
    """

    label: str
    seed: int
    player: str = ""

    def __str__(self) -> str:
        return f"{self.label}, seed {self.seed}{f', {self.player}' if self.player else ''}"

    @classmethod
    def parse(cls, name: str) -> "RowName | None":
        """The parts of a name; None for a row that is not of a comparison."""
        label, separator, rest = name.rpartition(", seed ")
        seed, _, player = rest.partition(", ")
        return cls(label, int(seed), player) if separator and seed.isdecimal() else None


@dataclass(frozen=True)
class Run:
    """One row with one seed."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """Of the student's row in run.json."""
        return str(RowName(self.row.label, self.seed))


@dataclass(frozen=True)
class Comparison:
    """A whole comparison, checked.

    Attributes:
        rows: all of them, group by group, whether they are to run or not.
        chosen: what is to run.
        output: where to write, and what is measured.
        config: the fields that all rows share, flat, for run.json.
    """

    rows: tuple[Row, ...]
    chosen: CompareConfig
    output: OutputConfig
    config: Mapping[str, Any]

    @property
    def plain(self) -> str | None:
        """Title of the row to which the others' cost is relative."""
        has_crop_flip = any(row.title == CROP_FLIP for row in self.rows)
        return self.chosen.plain or (CROP_FLIP if has_crop_flip else None)

    @property
    def chosen_rows(self) -> tuple[Row, ...]:
        """The rows that are to run."""
        titles, groups = self.chosen.rows, self.chosen.groups
        of_groups = [row for row in self.rows if not groups or row.group in groups]
        return tuple(row for row in of_groups if not titles or row.title in titles)

    @property
    def overrides(self) -> dict[str, dict[str, Any]]:
        """The fields in which each row differs, for run.json."""
        return {row.label: dict(row.overrides) for row in self.rows}

    def of_fold(self, fold: int, is_begun: bool) -> "Comparison":
        """The comparison that holds out a fold, in a folder of its own.

        Args:
            fold: from 0; its number is the seed.
            is_begun: whether that folder holds a run, which is resumed where the whole is.
        """
        held_out: dict[str, Any] = {"validation_share": 1 / self.chosen.folds, "validation_fold": fold}
        folder = Path(str(self.output.output_dir), f"fold_{fold}")
        resume_from = self.output.resume_from if is_begun else None
        return replace(
            self,
            rows=tuple(replace(row, data=replace(row.data, **held_out)) for row in self.rows),
            chosen=replace(self.chosen, seeds=(fold,)),
            output=replace(self.output, output_dir=str(folder), resume_from=resume_from),
            config={**self.config, **held_out},
        )

    def runs(self, before: Mapping[str, Any]) -> list[Run]:
        """The runs, all rows with one seed before the next seed; first the run that the folder began with.

        Args:
            before: run.json of the comparison that is resumed, or nothing.

        Raises:
            InputError: a row has changed since, or the first run is not among those chosen.
        """
        known = before.get("comparison", {})
        changed = [label for label, own in self.overrides.items() if known.get(label, own) != own]
        if changed:
            raise InputError(
                f"row {changed[0]!r} was {known[changed[0]]}, is {self.overrides[changed[0]]}: a comparison is "
                "resumed with the rows it was started with; more rows and more seeds may join them"
            )
        runs = [Run(row, seed) for seed in self.chosen.seeds for row in self.chosen_rows]
        lead = before.get("main_row")
        if lead and lead not in {run.name for run in runs}:
            raise InputError(f"this comparison began with {lead}: keep it among --rows, --groups and --seeds")
        return sorted(runs, key=lambda run: run.name != lead)
