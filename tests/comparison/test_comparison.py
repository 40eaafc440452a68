"""A comparison: what its YAML comes to, what is refused, the table against numbers worked out by hand, and a real one.

The real one has two rows and two seeds, is stopped inside its second run, and ends in the uninterrupted one's table.
"""

import itertools
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from hf_transinv.comparison.figure import plot_comparison
from hf_transinv.comparison.measures import Entry, Spread, differences, summarise
from hf_transinv.comparison.plan import Comparison, RowName
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.comparison.table import comparison_markdown
from hf_transinv.errors import InputError
from hf_transinv.experiment.methods import MethodConfig
from hf_transinv.formats.terminal import for_terminal
from hf_transinv.training.checkpointing import checkpoints
from tests.launching import PYTHON, REPOSITORY, end_when, launch, succeed

COMPARE = REPOSITORY / "recipes" / "compare.py"
SHIPPED = sorted((REPOSITORY / "recipes" / "configs").glob("compare_*.yaml"))
BASE = {"dataset": "digits/target", "student": "wrn10_1_cifar", "max_steps": 4, "learning_rate": 0.1}
TWO = {"crop + flip": None, "RandAugment": {"augment": ["randaugment"]}}


@pytest.fixture
def read(tmp_path):
    """Writes a YAML and reads the comparison in it."""

    def from_content(content: dict, *flags: str) -> Comparison:
        path = tmp_path / "compare.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return read_comparison(["--config", str(path), *flags])

    return from_content


def method_of(row):
    return next(option for option in row.options if isinstance(option, MethodConfig))


# Merging


def test_yaml_then_scale_then_command_line_then_group_then_row(read):
    content = BASE | {
        "learning_rate": 0.1,
        "momentum": 0.1,
        "weight_decay": 0.1,
        "label_smoothing": 0.1,
        "ema_decay": 0.1,
        "scale": {"first": {"seeds": [7]}, "second": {name: 0.2 for name in ("momentum", "weight_decay")}},
        "groups": {"g": {"label_smoothing": 0.4, "ema_decay": 0.4}},
        "rows": {"a": {"ema_decay": 0.5, "augment": ["cutout"]}, "b": None},
    }
    content["scale"]["second"] |= {"label_smoothing": 0.2, "ema_decay": 0.2}
    flags = [f"--{name}=0.3" for name in ("weight_decay", "label_smoothing", "ema_decay")]
    comparison = read(content, "--scale", "second", *flags)
    a, b = comparison.rows
    assert [row.label for row in (a, b)] == ["g: a", "g: b"]
    for row, ema_decay in ((a, 0.5), (b, 0.4)):
        loop = row.train
        assert (loop.learning_rate, loop.momentum, loop.weight_decay, loop.label_smoothing) == (0.1, 0.2, 0.3, 0.4)
        assert row.names.ema_decay == ema_decay
    assert (method_of(a).augment, method_of(b).augment) == (("cutout",), ())
    assert comparison.chosen.seeds == (0, 1, 2) and comparison.config["scale"] == "second"
    assert read(content).chosen.seeds == (7,), "the first scale is the default"


def test_a_scale_may_bring_the_rows_and_the_groups(read):
    content = BASE | {"rows": TWO, "scale": {"s": {"rows": {"only": None}, "groups": {"x": None, "y": {}}}}}
    assert [row.label for row in read(content).rows] == ["x: only", "y: only"]


def test_runs_are_rows_then_seeds_and_may_be_some_of_them(read):
    content = BASE | {"rows": TWO, "groups": {"x": None, "y": None}, "seeds": [3, 1]}
    assert [run.name for run in read(content).runs({})] == [
        *("x: crop + flip, seed 3", "x: RandAugment, seed 3", "y: crop + flip, seed 3", "y: RandAugment, seed 3"),
        *("x: crop + flip, seed 1", "x: RandAugment, seed 1", "y: crop + flip, seed 1", "y: RandAugment, seed 1"),
    ]
    some = read(content, "--rows", "RandAugment", "--groups", "y", "--seeds", "5")
    assert [run.name for run in some.runs({})] == ["y: RandAugment, seed 5"]
    assert len(some.rows) == 4, "the table has every row that is there"


def test_what_is_resumed_begins_with_its_first_run_and_may_grow(read):
    content = BASE | {"rows": TWO | {"Cutout": {"augment": ["cutout"]}}, "seeds": [0, 1]}
    before = {"main_row": "RandAugment, seed 1", "comparison": {"RandAugment": {"augment": ["randaugment"]}}}
    names = [run.name for run in read(content).runs(before)]
    assert names[0] == "RandAugment, seed 1" and len(names) == len(set(names)) == 6
    with pytest.raises(InputError, match="began with RandAugment, seed 1: keep it"):
        read(content, "--seeds", "0").runs(before)
    changed = {"comparison": {"RandAugment": {"augment": ["autoaugment"]}}}
    with pytest.raises(InputError, match=r"row 'RandAugment' was \{'augment': \['autoaugment'\]\}"):
        read(content).runs(changed)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_yaml_is_whole_at_every_scale(path):
    content = yaml.safe_load(path.read_text())
    scales = list(content.get("scale", {}))
    assert scales[:2] == (["paper", "small"] if "table" in path.stem else [])
    for flags in [["--scale", scale] for scale in scales] or [[]]:
        comparison = read_comparison(["--config", str(path), *flags])
        assert comparison.plain is not None, "cost is relative to a row"
        assert len(comparison.runs({})) == len(comparison.rows) * len(comparison.chosen.seeds)


# What is refused


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"batch_size": 64}, "row 'r': batch_size cannot differ, since every row has the same schedule"),
        ({"max_steps": 9}, "max_steps cannot differ.*sees as many images; set it above the rows"),
        ({"learning_rate": 1}, "learning_rate cannot differ.*set it in a group or above the rows"),
        ({"dataset": "x"}, "dataset cannot differ, since every row sees the same pictures"),
        ({"student": "wrn16_2_cifar"}, "student cannot differ, since every row trains the same network"),
        ({"eval_severities": [1]}, "eval_severities cannot differ, since every row is measured alike"),
        ({"seeds": [1]}, "seeds cannot differ, since it belongs to the comparison as a whole"),
        ({"augmnt": ["cutout"]}, "unknown key 'augmnt' in row 'r'; did you mean augment"),
        ({"augment": "cutout"}, r"row 'r': augment is a list, such as \[a, b\]; given 'cutout'"),
        ({"method": ["ait"]}, "row 'r': method is one value"),
        ({"method": None}, "row 'r': method cannot be null"),
        ({"method": "best"}, "row 'r': method 'best' is not one of"),
        ({"tolerance": "wide"}, "row 'r'.*tolerance 'wide': expected a number"),
        ({"method": "hard", "augment": ["cutout"]}, "row 'r': method hard learns its own augmentation"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_the_reason(read, row, said):
    with pytest.raises(InputError, match=said):
        read(BASE | {"rows": {"other": None, "r": row}})


@pytest.mark.parametrize(
    ("more", "flags", "said"),
    [
        ({"rows": {}}, [], "has no rows"),
        ({"rows": ["a", "b"]}, [], "rows: expected titles"),
        ({"rows": {"a": "augmix"}}, [], "rows: expected titles"),
        ({"groups": {"g": {"batch_size": 64}}}, [], "group 'g': batch_size cannot differ"),
        ({"groups": {"g": {"studnt": "x"}}}, [], "unknown key 'studnt' in group 'g'; did you mean student"),
        ({"learning_rat": 1}, [], "unknown key 'learning_rat' in .*compare.yaml; did you mean learning_rate"),
        ({"scale": {"small": {"max_step": 1}}}, [], "unknown key 'max_step' in .*did you mean max_steps"),
        ({"rows": {"a+b": None, "a b": None}}, [], "'a b' reads like 'a.b' as the name of a folder"),
        ({}, ["--scale", "small"], "scale 'small': expected none, since the config has no scale"),
        ({"scale": {"paper": {}}}, ["--scale", "small"], "scale 'small': expected one of: paper"),
        ({}, ["--rows", "AIT"], r"rows 'AIT': expected one of: crop \+ flip, RandAugment"),
        ({}, ["--groups", "g"], "groups 'g': expected none"),
        ({}, ["--plain", "AIT"], "plain 'AIT': expected one of"),
        ({}, ["--seeds", "1", "1"], "each once"),
        ({}, ["--seed", "1"], "seed 1: a comparison has seeds"),
        ({}, ["--learning_rat", "1"], "unknown flag 'learning_rat' in the command line; did you mean learning_rate"),
        ({"push_to_hub": "me/x"}, [], "publishes no student"),
        ({"baselines": ["plain"]}, [], "has its baselines as rows"),
        ({}, ["--resume_from", "outputs/x/checkpoints/step_00000001"], "goes on from where it stopped: latest"),
        ({"student": None, "max_steps": 4}, [], "row 'crop . flip': no student given"),
        ({}, ["--folds", "1"], "folds must be 2 or more"),
        ({}, ["--folds", "5", "--seeds", "0", "1"], "in its turn .* leave out seeds"),
        ({"validation_share": 0.2}, ["--folds", "5"], "leave out validation_share"),
        ({"validation_split": "test"}, ["--folds", "5"], "leave out validation_split"),
        ({"dataset": "x", "streaming": True}, ["--folds", "5", "--output_dir", "o"], "a stream does not"),
        ({}, ["--folds", "5"], "folds: give --output_dir"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(read, more, flags, said):
    with pytest.raises(InputError, match=said):
        read(BASE | {"rows": TWO} | more, *flags)


def test_rows_from_other_teachers_weights_are_other_networks(read):
    content = {"dataset": "x", "max_steps": 4, "student_init": "teacher:1", "rows": {"a": {"teachers": ["one"]}}}
    content["rows"]["b"] = {"teachers": ["one", "two"], "augment": ["transinv"]}
    read(content)
    content["rows"]["b"] = {"teachers": ["two", "one"], "augment": ["transinv"]}
    with pytest.raises(InputError, match="'a' and 'b' train other networks, one and two"):
        read(content)


# The table


def result(clean, fog=None, snow=None, seconds=10.0, images=1000, ece=0.1):
    """A row of run.json as `Session.fit` writes it, with the errors of two corruptions at one severity."""
    scores = {"clean": {"top1": clean, "ece": ece}, "corruptions": {}, "corruption_mean": None}
    scores |= {"corruption_ece": None, "corruption_errors": {}}
    if fog is not None:
        mean = (fog + snow) / 2
        error = {"percent": 100 - mean, "definition": "mean top-1 error over two"}
        scores |= {"corruptions": {"fog": {"3": fog, "mean": fog}, "snow": {"3": snow, "mean": snow}}}
        scores |= {"corruption_mean": mean, "corruption_ece": 2 * ece, "corruption_errors": {"mean_error": error}}
    return {"results": scores, "train_seconds": seconds, "images_seen": images}


@pytest.fixture
def by_hand(read):
    """Two seeds of crop + flip, a row that was trained on fog, and one with a peer that has its first seed only."""
    rows = {
        "crop + flip": None,
        "fog": {"augment": ["corruption"], "corruption": ["fog"]},
        "multi-AIT": {"method": "multi_ait"},
    }
    found = {
        "crop + flip, seed 0": result(60, 20, 40, 10.0),
        "fog, seed 0": result(58, 56, 44, 11.0),
        "multi-AIT, seed 0": result(65, 30, 50, 20.0),
        "multi-AIT, seed 0, peer": result(63, 28, 50, 20.0),
        "crop + flip, seed 1": result(63, 24, 40, 20.0, ece=0.3),
        "fog, seed 1": result(58, 52, 44, 24.0),
    }
    for name, row in found.items():
        row["kin"] = {"fog": "training images are corrupted by it"} if name.startswith("fog") else {}
    return read(BASE | {"rows": rows}), found


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("g: a, seed 12", RowName("g: a", 12)),
        ("a, seed 3, seed 0, peer_2", RowName("a, seed 3", 0, "peer_2")),
        ("crop + flip", None),
        ("a, seed x", None),
    ],
)
def test_names_of_rows_are_read_as_they_are_written(name, parts):
    assert RowName.parse(name) == parts
    assert parts is None or str(parts) == name


def test_a_row_that_no_run_writes_is_named(by_hand):
    comparison, found = by_hand
    found["fog, seed 0"]["results"]["clean"]["top1"] = None
    with pytest.raises(InputError, match=r"rows.fog, seed 0.results.clean.top1: expected a number, found None"):
        summarise(comparison.rows, found)


def test_the_table_is_mean_and_deviation_over_the_seeds(by_hand):
    comparison, found = by_hand
    plain, fog, multi, peer = summarise(comparison.rows, found, comparison.plain)
    assert [entry.row for entry in (plain, fog, multi, peer)] == [
        "crop + flip",
        "fog",
        "multi-AIT",
        "multi-AIT, peer",
    ]
    assert plain.measures["clean"] == Spread(61.5, pytest.approx(4.5**0.5), [60, 63])
    assert plain.measures["corrupted"].values == [30, 32]
    assert plain.measures["no_kin"].values == [40, 40], "fog is kin to another row of the group"
    assert plain.measures["mean_error"].values == [70, 68]
    assert plain.measures["ece"].values == [0.1, 0.3]
    assert plain.measures["ece_corrupted"].mean == pytest.approx(0.4)
    assert plain.measures["cost"].values == [1, 1]
    assert fog.measures["cost"].values == pytest.approx([1.1, 1.2])
    assert (plain.trained_on, fog.trained_on) == ([], ["fog"])
    assert multi.seeds == peer.seeds == [0]
    assert multi.measures["clean"] == Spread(65, None, [65])
    assert multi.measures["cost"].values == [2]
    assert peer.measures.keys() == multi.measures.keys() - {"train_seconds", "cost"}


def test_no_mean_without_kin_where_a_row_does_not_say_what_it_is_kin_to(by_hand):
    comparison, found = by_hand
    del found["multi-AIT, seed 0"]["kin"]
    assert all("no_kin" not in entry.measures for entry in summarise(comparison.rows, found, comparison.plain))


def test_the_table_reads_well(by_hand):
    comparison, found = by_hand
    entries = summarise(comparison.rows, found, comparison.plain)
    text = comparison_markdown(entries, comparison.plain, {"mean_error": "mean top-1 error over two"})
    assert text.splitlines() == [
        "| row | seeds | clean | corrupted | no kin | mean error | ECE | ECE, corrupted | time | cost |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| crop + flip | 0, 1 | 61.5 ± 2.1 | 31.0 ± 1.4 | 40.0 ± 0.0 | 69.0 ± 1.4 | 0.200 ± 0.141 | 0.400 ± 0.283 "
        "| 15 s | 1.00 ± 0.00 |",
        "| fog | 0, 1 | 58.0 ± 0.0 | 49.0 ± 1.4\\* | 44.0 ± 0.0 | 51.0 ± 1.4\\* | 0.100 ± 0.000 | 0.200 ± 0.000 "
        "| 18 s | 1.15 ± 0.07 |",
        "| multi-AIT | 0 | 65.0 | 40.0 | 50.0 | 60.0 | 0.100 | 0.200 | 20 s | 2.00 |",
        "| multi-AIT, peer | 0 | 63.0 | 39.0 | 50.0 | 61.0 | 0.100 | 0.200 | – | – |",
        "",
        "Mean ± standard deviation (n − 1) of seeds 0, 1. Every network was shown 1,000 training images. "
        "Percent, but for ECE (0 to 1) and time, which is that of training alone. "
        "mean error: mean top-1 error over two. Cost: training time relative to crop + flip. "
        "No kin: mean over the corruptions that no row of the group imitates in training. "
        "\\* trained on some of the corruptions.",
        "",
        "| row | clean | corrupted | no kin | ECE | ECE, corrupted |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| fog | -3.5 ± 2.1 | +18.0 ± 2.8\\* | +4.0 ± 0.0 | -0.100 ± 0.141 | -0.200 ± 0.283 |",
        "",
        "The same, less crop + flip with the same seed: mean ± standard deviation of the differences, in which what "
        "all rows of a seed have in common cancels out.",
    ]


def test_differences_are_between_runs_of_the_same_seed_and_group(read):
    """Rows share seeds 1 and 2 only; in group y the plain row has one of them."""
    content = BASE | {"rows": TWO, "groups": {"x": None, "y": None}, "seeds": [0, 1, 2, 3]}
    found = {f"x: crop + flip, seed {seed}": result(clean, ece=0.2) for seed, clean in enumerate((10, 50, 70))}
    found |= {f"x: RandAugment, seed {seed}": result(clean, 30, 40) for seed, clean in ((1, 53), (2, 71), (3, 90))}
    found |= {"y: crop + flip, seed 1": result(50)}
    found |= {f"y: RandAugment, seed {seed}": result(60) for seed in (1, 2)}
    entries = summarise(read(content).rows, found, "crop + flip")
    (other,) = differences(entries, "crop + flip")
    assert (other.group, other.row, other.seeds) == ("x", "RandAugment", [1, 2])
    assert other.measures["clean"] == Spread(2, pytest.approx(2**0.5), [3, 1])
    assert other.measures["ece"].values == pytest.approx([-0.1, -0.1])
    assert other.measures.keys() == {"clean", "ece"}, "the plain row has no corruptions"
    assert differences(entries, None) == []
    (mine,) = differences(entries, "RandAugment")
    assert mine.row == "crop + flip" and mine.measures["clean"].values == [-3, -1]


def test_augmented_images_have_columns_where_they_were_measured(read):
    """Two seeds on two test sets; the last row's network does not say what its features are."""
    found = {}
    for seed, top1, moved in ((0, 60.0, 0.5), (1, 62.0, 0.7)):
        for title in TWO:
            augmented = {
                name: {"top1": top1 + shift, "kl": moved, "feature_distance": 2 * moved}
                for name, shift in (("pad_crop", 0), ("grayscale", -20))
            }
            if title == "RandAugment":
                augmented = {name: row | {"feature_distance": None} for name, row in augmented.items()}
            run = result(70.0)
            run["results"]["augmented"] = augmented
            found[f"{title}, seed {seed}"] = run
    entries = summarise(read(BASE | {"rows": TWO}).rows, found)
    plain, other = (entry.measures for entry in entries)
    assert plain["top1_grayscale"] == Spread(41, pytest.approx(2**0.5), [40, 42])
    assert plain["kl_pad_crop"].values == [0.5, 0.7] and plain["feature_distance_pad_crop"].values == [1.0, 1.4]
    assert plain.keys() - other.keys() == {"feature_distance_pad_crop", "feature_distance_grayscale"}
    lines = comparison_markdown(entries).splitlines()
    assert lines[0] == "| row | clean | pad crop | grayscale | ECE | time |"
    assert lines[2] == "| crop + flip | 70.0 ± 0.0 | 61.0 ± 1.4 | 41.0 ± 1.4 | 0.100 ± 0.000 | 10 s |"
    assert lines[7:11] == [
        "| row | KL, pad crop | KL, grayscale | distance, pad crop | distance, grayscale |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| crop + flip | 0.600 ± 0.141 | 0.600 ± 0.141 | 1.200 ± 0.283 | 1.200 ± 0.283 |",
        "| RandAugment | 0.600 ± 0.141 | 0.600 ± 0.141 | – | – |",
    ]
    assert "in nats" in lines[12]


def test_each_row_has_its_mean_over_the_groups(read):
    content = BASE | {"rows": TWO, "groups": {"x": None, "y": None}, "seeds": [0, 1]}
    found = {
        "x: crop + flip, seed 0": result(50),
        "x: crop + flip, seed 1": result(54),
        "x: RandAugment, seed 0": result(70, seconds=30.0),
        "y: crop + flip, seed 0": result(60),
        "y: crop + flip, seed 1": result(62),
    }
    entries = summarise(read(content).rows, found, "crop + flip")
    mean = entries[-1]
    assert [(entry.group, entry.row) for entry in entries] == [
        *(("x", "crop + flip"), ("x", "RandAugment"), ("y", "crop + flip")),
        ("mean of groups", "crop + flip"),
    ]
    assert mean.measures["clean"] == Spread(56.5, pytest.approx(4.5**0.5), [55, 58])
    assert "corrupted" not in mean.measures
    lines = comparison_markdown(entries, "crop + flip").splitlines()
    assert lines[0] == "| group | row | seeds | clean | ECE | time | cost |"
    assert lines[3] == "| x | RandAugment | 0 | 70.0 | 0.100 | 30 s | 3.00 |"


def test_the_rows_on_corruption_primitives_and_their_policies_are_marked(read):
    rows = {
        "probe": {"augment": ["transinv"], "primitives": ["fog:3", "geometric"], "teachers": ["ema"]},
        "unused": {"corruption": ["snow"], "primitives": ["fog:3"]},
        "second": {"method": "ait", "augment": ["cutout"], "second_augment": ["corruption"], "corruption": ["snow"]},
    }
    assert [row.trained_on for row in read(BASE | {"rows": rows}).rows] == [("fog",), (), ("snow",)]


# The picture


@pytest.fixture
def saved_figure(monkeypatch):
    """The figures that were saved, to be read as matplotlib has them."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **more: (figures.append(self), save(self, *args, **more))
    )
    return figures


def test_the_picture_has_a_point_a_row_with_its_deviation(by_hand, tmp_path, saved_figure):
    comparison, found = by_hand
    entries = summarise(comparison.rows, found, comparison.plain)
    path = plot_comparison(entries, tmp_path / "new" / "comparison.png")
    with Image.open(path) as picture:
        assert min(picture.size) > 400
    (axes,) = saved_figure[0].axes
    points = [bar.lines[0].get_xydata()[0].tolist() for bar in axes.containers]
    assert points == [[61.5, 31], [58, 49], [65, 40], [63, 39]]
    along_x, along_y = (lines.get_segments()[0] for lines in axes.containers[0].lines[2])
    np.testing.assert_allclose(along_x, [[61.5 - 4.5**0.5, 31], [61.5 + 4.5**0.5, 31]])
    np.testing.assert_allclose(along_y, [[61.5, 31 - 2**0.5], [61.5, 31 + 2**0.5]])
    assert not saved_figure[0].legends
    labels = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert sorted(labels) == sorted(entry.row for entry in entries)
    assert all(not one.overlaps(other) for one, other in itertools.combinations(labels.values(), 2))


def test_many_rows_have_a_legend_that_fits_on_the_page(tmp_path, saved_figure):
    titles = [f"consistency + TransInv, wide, chains of {k}" for k in range(8)]
    spread = [Spread(50.0 + k, None, [50.0 + k]) for k in range(8)]
    entries = [
        Entry("", title, [0], [], {"clean": s, "corrupted": s}) for title, s in zip(titles, spread, strict=True)
    ]
    plot_comparison(entries, tmp_path / "comparison.png")
    (figure,) = saved_figure
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == titles and not figure.axes[0].texts
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_without_corruptions_the_picture_has_a_line_a_row(read, tmp_path, saved_figure):
    found = {"crop + flip, seed 0": result(50), "RandAugment, seed 0": result(70)}
    entries = summarise(read(BASE | {"rows": TWO}).rows, found)
    plot_comparison(entries, tmp_path / "comparison.png")
    (axes,) = saved_figure[0].axes
    assert [bar.lines[0].get_xydata()[0].tolist() for bar in axes.containers] == [[50, 0], [70, 1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["crop + flip", "RandAugment"]
    with pytest.raises(InputError, match="No rows"):
        plot_comparison([], tmp_path / "comparison.png")


# A real one


def without_times(path: Path) -> dict:
    """comparison.json but for what a clock decides."""
    content = json.loads(path.read_text())
    for row in content["rows"]:
        for name in ("train_seconds", "cost"):
            row["measures"].pop(name, None)
    return content


def test_a_comparison_that_was_stopped_comes_to_the_same_table(tmp_path):
    rows = {"crop + flip": {"crop": "pad", "flip": True}, "mutual": {"method": "mutual", "augment": ["cutout"]}}
    rows["mutual"]["crop"] = "resized"
    content = {"dataset": "digits/target", "image_size": 32, "student": "wrn10_1_cifar", "crop": "none", "flip": False}
    content |= {"batch_size": 8, "max_steps": 6, "save_steps": 2, "eval_corruptions": ["none"], "cutout_size": 8}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(content | {"rows": rows}, sort_keys=False))
    flags = ["--config", "compare.yaml", "--output_dir"]
    first = succeed(PYTHON, COMPARE, *flags, "whole", "--seeds", 0, 1, cwd=tmp_path).stdout
    assert "shorter side resized to 32 px" in first and "images      of 'mutual': whole pictures" in first

    second = tmp_path / "stopped" / "baselines" / "mutual_seed_0" / "checkpoints"
    code, said = end_when(
        lambda: bool(checkpoints(second)), signal.SIGTERM, COMPARE, *flags, "stopped", "--seeds", 0, cwd=tmp_path
    )
    assert code == 130 and "--resume_from latest" in said
    (partial,) = json.loads((tmp_path / "stopped" / "comparison.json").read_text())["rows"]
    assert (partial["row"], partial["seeds"]) == ("crop + flip", [0])

    again = ["stopped", "--seeds", 0, 1, "--resume_from", "latest"]
    done = succeed(PYTHON, COMPARE, *flags, *again, cwd=tmp_path)
    whole, stopped = (without_times(tmp_path / name / "comparison.json") for name in ("whole", "stopped"))
    assert stopped == whole
    assert [(row["row"], row["seeds"]) for row in whole["rows"]] == [
        (title, [0, 1]) for title in ("crop + flip", "mutual", "mutual, peer")
    ]
    assert all(len(set(row["measures"]["clean"]["values"])) == 2 for row in whole["rows"]), "seeds must differ"
    assert for_terminal((tmp_path / "stopped" / "comparison.md").read_text(), 80) in done.stdout
    assert (tmp_path / "stopped" / "figures" / "comparison.png").stat().st_size > 1000
    run = json.loads((tmp_path / "stopped" / "run.json").read_text())
    assert run["status"] == "finished" and run["comparison"] == rows and len(run["rows"]) == 6


def test_a_cross_validation_measures_every_image_once_and_goes_on_where_it_was_stopped(tmp_path):
    content = {"dataset": "digits/target", "image_size": 32, "student": "wrn10_1_cifar", "batch_size": 16}
    content |= {"max_steps": 4, "save_steps": 2, "eval_corruptions": ["none"], "seeds": [5], "rows": TWO}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    flags = ["--config", "compare.yaml", "--folds", 2, "--output_dir"]
    refused = launch(PYTHON, COMPARE, *flags, "no", cwd=tmp_path)
    assert refused.returncode == 2 and "folds 2: split 'test' would be measured" in refused.stderr
    flags[2:2] = ["--train_split", "train+test"]
    whole = succeed(PYTHON, COMPARE, *flags, "whole", cwd=tmp_path).stdout
    folds = [json.loads((tmp_path / "whole" / f"fold_{fold}" / "run.json").read_text()) for fold in (0, 1)]
    for fold, run in enumerate(folds):
        config = run["config"]
        assert (config["validation_share"], config["validation_fold"], run["status"]) == (0.5, fold, "finished")
        assert list(run["rows"]) == [f"{title}, seed {fold}" for title in TWO]
    sizes = [row["results"]["num_images"] for run in folds for row in run["rows"].values()]
    assert sizes[0] == sizes[1] and sizes[2] == sizes[3] and sizes[0] + sizes[2] == 896, "all images, each once"
    table = json.loads((tmp_path / "whole" / "comparison.json").read_text())
    found = [[run["rows"][f"{title}, seed {fold}"] for fold, run in enumerate(folds)] for title in TWO]
    assert [row["seeds"] for row in table["rows"]] == [[0, 1], [0, 1]]
    for row, runs in zip(table["rows"], found, strict=True):
        assert row["measures"]["clean"]["values"] == [run["results"]["clean"]["top1"] for run in runs]
    assert [(row["row"], row["seeds"]) for row in table["differences"]] == [("RandAugment", [0, 1])]
    text = (tmp_path / "whole" / "comparison.md").read_text()
    assert "Cross-validation: with seed K fold K of 2 is held out and measured." in text
    assert for_terminal(text, 80) in whole and "fold        1 of 0 to 1: held out" in whole

    second = tmp_path / "stopped" / "fold_1" / "checkpoints"
    code, said = end_when(lambda: bool(checkpoints(second)), signal.SIGTERM, COMPARE, *flags, "stopped", cwd=tmp_path)
    assert code == 130 and "--output_dir stopped --resume_from latest" in said
    refused = launch(PYTHON, COMPARE, *flags, "stopped", cwd=tmp_path)
    assert refused.returncode == 2 and "stopped holds another run" in refused.stderr
    refused = launch(PYTHON, COMPARE, *flags, "nothing", "--resume_from", "latest", cwd=tmp_path)
    assert refused.returncode == 2 and "nothing holds no cross-validation to resume" in refused.stderr
    succeed(PYTHON, COMPARE, *flags, "stopped", "--resume_from", "latest", cwd=tmp_path)
    assert without_times(tmp_path / "stopped" / "comparison.json") == without_times(
        tmp_path / "whole" / "comparison.json"
    )
