r"""Compare methods: one student, one data set and one schedule; a table of rows and seeds from one YAML.

transinv compare
    the embedded default: digits, from the teacher that does not mind contrast
    and brightness
transinv compare --mixed_precision bf16 --config compare_transinv_table1 \
    --scale small --output_dir outputs/table1
    if stopped, resume with the same command and --resume_from latest; --rows,
    --groups and --seeds may then be added

transinv compare --config my_table.yaml --train_split train+test --folds 5 \
    --output_dir outputs/folds
    cross-validation: every image is measured once

comparison.md, comparison.json and figures/comparison.png are rewritten after
every run; run.json holds all results in full.
`hf_transinv/comparison/plan_reader.py` says what a YAML may hold.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.comparison.budget import decide, described
from hf_transinv.comparison.plan import Comparison, Run
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.comparison.table import write_comparison
from hf_transinv.data.described import describe_rows
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import told_configs
from hf_transinv.experiment.launch import agree
from hf_transinv.experiment.methods import MethodBuilder, checked_mixing
from hf_transinv.experiment.session import Session
from hf_transinv.experiment.student_checks import check_student
from hf_transinv.formats.terminal import printed, say
from hf_transinv.objectives.objective import Objective
from hf_transinv.record import RunRecord
from hf_transinv.resolve.shipped import config_folder


def build(session: Session, run: Run, steps: int | None = None) -> Objective:
    """The objective of a run; sets the session to the row's loop, label noise and regularisers.

    The student is the same in every row with this seed.

    Args:
        session: data and device.
        run: row and seed.
        steps: of the student, where the budget decides them.
    """
    train = replace(run.row.train, batch_size=session.train.batch_size)  # as it fits the data
    session.train = replace(train, max_steps=steps, num_train_epochs=None) if steps else train
    session.config = run.row.data
    session.mixing, _ = checked_mixing(run.row.data, run.row.options)
    session.tracking.overrides = run.row.overrides
    return MethodBuilder(session, run.row.names, run.row.train, run.row.options).build(run.seed)


def check(session: Session, runs: list[Run]) -> dict[str, set[str]]:
    """Build every row that is to be trained once before the first is, so that input at fault is refused at once.

    Returns:
        The corruptions that rows are kin to, by group.

    Raises:
        InputError: a teacher that is missing or does not fit, a method that cannot be built, a batch that cannot be
            shared out among the variants of an image.
    """
    kin: dict[str, set[str]] = {run.row.group: set() for run in runs}
    for run in runs:
        if run.name in session.rows:  # an earlier version did not record it: all, then
            kin[run.row.group] |= set(session.rows[run.name].get("kin", CORRUPTIONS))
    for row, run in {run.row.label: run for run in runs if run.name not in session.rows}.items():
        try:
            objective = build(session, run)
        except InputError as error:
            raise InputError(f"row {row!r}: {error}") from error
        variants = objective.variants_a_network
        if session.train.batch_size % variants:
            raise InputError(f"row {row!r} has {variants} variants per image: batch_size must be a multiple of that")
        kin[run.row.group] |= set(objective.kin)
    return kin


def compare(comparison: Comparison, told: Sequence[str], output_dir: Path | None = None) -> Session:
    """Train and measure the rows of a comparison that are not finished; its table is rewritten after each.

    Args:
        comparison: what is to run.
        told: lines that are said at the start.
        output_dir: of the whole cross-validation that this is a fold of.

    Raises:
        InputError: a row that cannot be built, or a fold that is not what would be measured.
    """
    first, output = comparison.chosen_rows[0], comparison.output
    unit = math.lcm(*(checked_mixing(row.data, row.options)[1] for row in comparison.chosen_rows))
    session = Session("compare", first.data, first.train, output, dict(comparison.config), unit)
    if output_dir:
        session.output_dir = output_dir
        if session.splits.evaluation is not session.splits.validation:
            raise InputError(
                f"folds {comparison.chosen.folds}: split {session.splits.evaluation.split!r} would be measured in the "
                "place of each fold. Train on all splits, such as --train_split train+test, so that every image is "
                "measured once; or leave out folds, to measure that split"
            )
    before = agree(session.accelerator, lambda: RunRecord.read(session.folder) if output.resume_from else {})
    runs = comparison.runs(before)
    if session.record:
        say("opening", "student and teachers of every row")
    kin = check(session, runs)
    cuts = {row.label: row.data for row in comparison.chosen_rows}
    session.told += [*told, *describe_rows(first.data, cuts, session.splits.train, session.data.image_size)]
    budget = decide(comparison, session, before, lambda row: build(session, Run(row, comparison.chosen.seeds[0])))
    session.told += described(budget)
    if session.record:
        session.record.content |= {"comparison": comparison.overrides, "budget": budget}
    for index, run in enumerate(runs):
        # The first run is fitted even if it is finished: the session takes its folder as the main one.
        if index and run.name in session.rows:
            continue
        steps = budget.get("rows", {}).get(run.row.label, {}).get("steps")
        session.tracking.kin = kin[run.row.group]
        session.fit(run.name, build(session, run, steps), run.row.data.crop, run.row.data.flip, run.seed)
        session.accelerator.free_memory()  # otherwise it would keep the networks of all runs
        if session.record:
            write_comparison(comparison, session.rows, session.folder, budget)
    if session.record:
        session.record.update(status="finished")
        write_comparison(comparison, session.rows, session.folder, budget)
    return session


def cross_validate(comparison: Comparison, told: Sequence[str]) -> Session:
    """One comparison per fold, and a table of all folds that is rewritten after each.

    Raises:
        InputError: the folder holds something else, or no fold to resume; and see `compare`.
    """
    folder, resumes = Path(str(comparison.output.output_dir)), bool(comparison.output.resume_from)
    if resumes and not (folder / "fold_0" / "run.json").exists():
        raise InputError(f"{folder} holds no cross-validation to resume (no fold_0/run.json)")
    if not resumes and any((folder / name).exists() for name in ("run.json", "comparison.json", "comparison.md")):
        raise InputError(f"{folder} holds another run, which would be overwritten; give another --output_dir")
    session: Session | None = None
    rows: dict[str, Any] = {}
    budgets = {}
    for fold in range(comparison.chosen.folds):
        session = None  # lets its images go before others are decoded
        of_fold = comparison.of_fold(fold, is_begun=(folder / f"fold_{fold}" / "run.json").exists())
        said = f"fold        {fold} of 0 to {comparison.chosen.folds - 1}: held out, and measured"
        session = compare(of_fold, [*told, said], folder)
        session.tracking.close()
        if session.record:
            rows |= session.rows
            budgets[f"fold_{fold}"] = session.record.content["budget"]
            write_comparison(comparison, rows, folder, budgets)
    assert session is not None
    return session


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    default_config = config_folder() / "compare_digits.yaml"
    comparison = read_comparison(default_config=default_config, description=description)
    for row in comparison.chosen_rows:
        try:
            check_student(row.names, row.train)
        except InputError as error:
            raise InputError(f"row {row.label!r}: {error}") from error
    told = told_configs() or [f"config      {default_config}"]
    session = cross_validate(comparison, told) if comparison.chosen.folds else compare(comparison, told)
    if session.record:
        folder = session.output_dir
        print(f"\n{printed((folder / 'comparison.md').read_text(encoding='utf-8'))}")
        where = "those of each fold, with run.json, below it" if comparison.chosen.folds else "with run.json"
        print(f"Table, figure and numbers are in {folder}, {where}")
    session.leave()
