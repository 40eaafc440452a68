"""What a comparison came to, as numbers: the measures of each run, and of each row over its seeds.

    clean        top-1 on the evaluation images, percent
    top1_NAME    top-1 on images changed by the augmentation NAME (see `evaluation`), percent
    corrupted    mean top-1 over the corruptions (see `evaluation`), percent
    no_kin       mean top-1 over the corruptions that no row of the group is kin to (`augment.kin`), if some are
    mCE, ...     the errors under corruption that the evaluation defines, percent
    ece, ece_corrupted    expected calibration error, clean and mean over the corruptions, in [0, 1]
    kl_NAME, feature_distance_NAME    how far that augmentation moves predictions (nats) and features
    train_seconds    of training alone
    images       training images that each network was shown, one version of each in a batch
    shown        versions of training images that a network answered to in its own turns
    distinct     images of its batches, whose versions these are
    steps        of the student
    cost         train_seconds relative to the plain row of the same group and seed

A peer, which trained beside a row's student, has a row of its own, without seconds: they are those of the student.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from hf_transinv.comparison.plan import Row, RowName
from hf_transinv.errors import InputError
from hf_transinv.evaluation.summary import ALEXNET_ERRORS
from hf_transinv.formats.typed_json import read_as
from hf_transinv.hub.recorded_row import Row as RecordedRow

MEAN_GROUP = "mean of groups"
"""Title of the group that has each row's mean over the others."""

_SCORES = ("clean", "corrupted", "no_kin", "ece", "ece_corrupted")


@dataclass(frozen=True)
class Trained:
    """A network that a comparison has trained.

    Attributes:
        row: of the comparison.
        seed: that it was trained with.
        player: "" for the student, else the name of a peer.
        record: its row of run.json.
    """

    row: Row
    seed: int
    player: str
    record: RecordedRow

    @property
    def title(self) -> str:
        """Of its row in the table."""
        return f"{self.row.title}, {self.player}" if self.player else self.row.title


@dataclass(frozen=True)
class Measured:
    """A network and its measures, by name.

    Attributes:
        group: of its row; or `MEAN_GROUP`.
        title: of its row in the table.
        seed: that it was trained with.
        measures: see the top of this module.
    """

    group: str
    title: str
    seed: int
    measures: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """One measure over the seeds.

    Attributes:
        mean: over the seeds.
        deviation: standard deviation (n - 1); None with one seed.
        values: one per seed that has the measure.
    """

    mean: float
    deviation: float | None
    values: list[float]


@dataclass(frozen=True)
class Entry:
    """A row of the table, over its seeds.

    Attributes:
        group: "" where there are none; `MEAN_GROUP` for the mean over them.
        row: title.
        seeds: of its runs.
        trained_on: corruptions that it saw in training.
        measures: by name.
    """

    group: str
    row: str
    seeds: list[int]
    trained_on: list[str]
    measures: dict[str, Spread]


def read_trained(rows: Sequence[Row], found: Mapping[str, Any]) -> list[Trained]:
    """The networks that are trained, row by row, the students by seed and then the peers.

    Args:
        rows: of the comparison. Networks of other rows are left out.
        found: the rows of run.json, "LABEL, seed N" and "LABEL, seed N, PEER".

    Raises:
        InputError: a row of run.json is not as a run writes it.
    """
    trained: dict[str, list[Trained]] = {row.label: [] for row in rows}
    by_label = {row.label: row for row in rows}
    for text, content in found.items():
        name = RowName.parse(text)
        if name is not None and name.label in by_label:
            record = read_as(RecordedRow, content, f"run.json.rows.{text}")
            trained[name.label].append(Trained(by_label[name.label], name.seed, name.player, record))
    return [one for of_row in trained.values() for one in sorted(of_row, key=lambda each: (each.player, each.seed))]


def summarise(rows: Sequence[Row], found: Mapping[str, Any], plain: str | None = None) -> list[Entry]:
    """What each row came to.

    Args:
        rows: of the comparison, in the order of the table; those without a result are left out.
        found: the rows of run.json.
        plain: title of the row to which cost is relative.

    Returns:
        One entry per row and group. Where there are several groups, each row's mean over them follows, for the seeds
        that all of them have.

    Raises:
        InputError: a row of run.json is not as a run writes it.
    """
    trained = read_trained(rows, found)
    kin: dict[str, set[str]] = {row.group: set() for row in rows}
    for network in trained:
        own = network.record.kin
        kin[network.row.group].update(ALEXNET_ERRORS if own is None else own)  # not known: all
    plain_seconds = {
        (one.row.group, one.seed): one.record.train_seconds
        for one in trained
        if one.row.title == plain and not one.player
    }
    measured = [
        Measured(
            one.row.group,
            one.title,
            one.seed,
            _measures(one, kin[one.row.group], plain_seconds.get((one.row.group, one.seed))),
        )
        for one in trained
    ]
    groups = list(dict.fromkeys(row.group for row in rows))
    trained_on = {(row.group, row.title): list(row.trained_on) for row in rows}
    if len(groups) > 1:
        measured += _over_groups(measured, groups)
        for row in rows:
            of_row = (names for (_, title), names in trained_on.items() if title == row.title)
            trained_on[MEAN_GROUP, row.title] = sorted({name for names in of_row for name in names})
    runs: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        runs.setdefault((one.group, one.title), []).append(one)
    return [_entry(own, trained_on.get(key, [])) for key, own in runs.items()]


def differences(entries: Sequence[Entry], plain: str | None) -> list[Entry]:
    """How far each row is from the plain row of its group, seed by seed: what is alike in a seed then cancels out.

    Args:
        entries: of `summarise`.
        plain: title of the row that is subtracted.

    Returns:
        One entry per row that shares at least two seeds with the plain one: those seeds, and the differences in top-1
        on clean and corrupted images, percent, and in calibration error.
    """
    beside = {entry.group: _by_seed(entry) for entry in entries if entry.row == plain}
    found = []
    for entry in entries:
        own, other = _by_seed(entry), beside.get(entry.group, {})
        seeds = [seed for seed in own if seed in other]
        if entry.row != plain and len(seeds) > 1:
            names = [name for name in _SCORES if all(name in of[seed] for of in (own, other) for seed in seeds)]
            gained = {name: _spread([own[seed][name] - other[seed][name] for seed in seeds]) for name in names}
            found.append(replace(entry, seeds=seeds, measures=gained))
    return found


def _by_seed(entry: Entry) -> dict[int, dict[str, float]]:
    """Seed -> the measures that every seed has, by name."""
    whole = {name: spread.values for name, spread in entry.measures.items() if len(spread.values) == len(entry.seeds)}
    return {seed: {name: values[place] for name, values in whole.items()} for place, seed in enumerate(entry.seeds)}


def _measures(trained: Trained, kin: set[str], plain_seconds: float | None) -> dict[str, float]:
    """The measures of one run.

    Args:
        trained: the run.
        kin: corruptions that some row of its group is kin to.
        plain_seconds: of the group's plain row with the same seed; None: unknown.
    """
    record, result = trained.record, trained.record.results
    if record.train_seconds is None or record.images_seen is None:
        raise InputError(f"run.json: row {trained.title!r} has no train_seconds or no images_seen")
    measures = {"clean": result.clean.top1}
    measures |= {f"top1_{name}": scores.top1 for name, scores in result.augmented.items()}
    others = [by_severity["mean"] for name, by_severity in result.corruptions.items() if name not in kin]
    optional = {
        "corrupted": result.corruption_mean,
        "no_kin": fmean(others) if 0 < len(others) < len(result.corruptions) else None,
        **{name: error.percent for name, error in result.corruption_errors.items()},
        "shown": record.images_shown,
        "distinct": record.images_distinct,
        "steps": record.steps,
        "ece": result.clean.ece,
        "ece_corrupted": result.corruption_ece,
    }
    for name, scores in result.augmented.items():
        optional |= {f"kl_{name}": scores.kl, f"feature_distance_{name}": scores.feature_distance}
    measures |= {name: value for name, value in optional.items() if value is not None}
    if not trained.player:
        measures["train_seconds"] = record.train_seconds
    measures["images"] = record.images_seen
    if plain_seconds and not trained.player:
        measures["cost"] = record.train_seconds / plain_seconds
    return measures


def _over_groups(measured: Sequence[Measured], groups: Sequence[str]) -> list[Measured]:
    """The mean over the groups of each row and seed that all of them have, of the measures that all of them have."""
    by_run = {(one.group, one.title, one.seed): one.measures for one in measured}
    means = []
    for title, seed in dict.fromkeys((one.title, one.seed) for one in measured):
        each = [by_run[group, title, seed] for group in groups if (group, title, seed) in by_run]
        if len(each) == len(groups):
            shared = [name for name in each[0] if all(name in measures for measures in each)]
            averaged = {name: fmean(measures[name] for measures in each) for name in shared}
            means.append(Measured(MEAN_GROUP, title, seed, averaged))
    return means


def _entry(runs: Sequence[Measured], trained_on: list[str]) -> Entry:
    """One row over its seeds."""
    spreads = {}
    for name in dict.fromkeys(name for run in runs for name in run.measures):
        spreads[name] = _spread([run.measures[name] for run in runs if name in run.measures])
    return Entry(runs[0].group, runs[0].title, [run.seed for run in runs], trained_on, spreads)


def _spread(values: list[float]) -> Spread:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, values)
