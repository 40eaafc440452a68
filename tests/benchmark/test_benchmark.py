"""The benchmark: its bounds counted in real turns, its figures by hand, its tables whole; never how fast it is."""

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from hf_transinv.augment.policies import POLICIES, PolicyConfig
from hf_transinv.augment.primitive_sets import PRIMITIVES
from hf_transinv.benchmark import augmentation_speed, corruption_speed, feed_speed, photograph_speed, turn_speed
from hf_transinv.benchmark.bounds import passes_of_cycle
from hf_transinv.benchmark.options import COMPARED, BenchmarkConfig
from hf_transinv.benchmark.runners import PLAIN, Entry, Runner, build_objective, build_trainer, entries
from hf_transinv.benchmark.synthetic import picture_levels, synthetic_split
from hf_transinv.benchmark.timing import Spread, Work, measure_in_rounds
from hf_transinv.data.image_decoder import stream_threads
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.registry import LEARNED, METHODS
from hf_transinv.objectives.turns import AUGMENTATION
from tests.launching import ACCELERATE, PYTHON, REPOSITORY, TWO_PROCESSES, launch, succeed

BENCHMARK = REPOSITORY / "recipes" / "benchmark.py"
STUDENT, AUGMENT = ("student",), (AUGMENTATION,)
CPU = torch.device("cpu")
TINY = BenchmarkConfig(
    student="wrn10_1_cifar",
    num_classes=3,
    batch_size=4,
    inner_steps=2,
    rounds=1,
    seconds=1e-6,
    teacher_counts=(1, 3),
    feed_images=24,
    photographs=8,
)


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def turn_section(accelerator):
    return turn_speed.section(TINY, accelerator)


def cells(markdown: str, number: int = 0) -> list[list[str]]:
    """Table `number` of some Markdown, without its rule."""
    tables = [part for part in markdown.split("\n\n") if part.startswith("|")]
    lines = [line.strip("|").split(" | ") for line in tables[number].splitlines()]
    return [[cell.strip() for cell in line] for line in (lines[0], *lines[2:])]


# Bounds


def test_every_method_and_learned_augmentation_is_measured():
    assert {entry.method for entry in entries(BenchmarkConfig())} == {*METHODS, *LEARNED}


def test_bounds_of_whole_cycles():
    passes = {STUDENT: Passes(3), AUGMENT: Passes(2, 3)}
    cycle = [STUDENT] * 5 + [AUGMENT]
    assert passes_of_cycle(passes, cycle) == passes_of_cycle(passes, cycle * 3) == Passes(17, 3, 5)
    assert str(passes_of_cycle(passes, cycle)) == "(17 F_s + 3 F_t) / 5"
    assert passes_of_cycle(passes, cycle).bound == (5 * 3 + 2 + 3) / (5 * 3) == 20 / 15
    assert passes_of_cycle({STUDENT: Passes(6, 2), AUGMENT: Passes(3, 3)}, [STUDENT, AUGMENT]) == Passes(9, 5)
    assert passes_of_cycle({STUDENT: Passes(3) * Fraction(13, 10)}, [STUDENT, STUDENT]) == Passes(39, 0, 10)


class PassCount:
    """Counts passes through networks as the bounds do, an image at a time."""

    def __init__(self, networks):
        self.passes = 0
        for network in networks:
            network.register_forward_pre_hook(self)

    def __call__(self, network: nn.Module, arguments: tuple) -> None:
        (images,) = arguments
        trains = any(parameter.requires_grad for parameter in network.parameters())
        backward = 2 if trains else int(images.requires_grad)
        self.passes += len(images) * (1 + backward * torch.is_grad_enabled())


@pytest.mark.parametrize("method", [*METHODS, *LEARNED])
def test_bounds_are_what_real_turns_pass_through_networks(accelerator, method):
    config = replace(TINY, batch_size=10)
    objective = build_objective(Entry(method, method), config, CPU)
    trainer = build_trainer(objective, config, accelerator, synthetic_split(20, 32, 3, 0, CPU))
    answering = [objective.teacher] if method == "teachaugment" else objective.teachers
    teachers = PassCount([teacher.classifier for teacher in answering])
    students = PassCount(objective.students.values())
    seen = {}
    for _ in range(4):
        students.passes = teachers.passes = 0
        turn = objective.next_turn(trainer.turn)
        trainer.take_turn()
        seen[turn] = (students.passes / 10, teachers.passes / 10)
    stated = {turn: objective.passes_of(turn) for turn in seen}
    expected = {turn: (one.student / one.images, one.teacher / one.images) for turn, one in stated.items()}
    if method == "transinv":  # one image in five stays as it is, and no teacher is asked about it
        expected[AUGMENT] = (3, 3 * 4 / 5)
    assert seen == expected


# Turns


def test_rows_by_hand():
    rounds = [
        [(STUDENT, 2.0), (STUDENT, 4.0), (AUGMENT, 6.0)],
        [(STUDENT, 1.0), (STUDENT, 1.0), (AUGMENT, 2.0)],
        [(STUDENT, 2.0), (STUDENT, 2.0), (AUGMENT, 4.0)],
    ]
    plain = [0.25, 0.125, 0.125]  # seconds an image
    memory = {STUDENT: 5 * 2**20, AUGMENT: 7 * 2**20}
    passes = {STUDENT: Passes(3), AUGMENT: Passes(2, 3)}
    student, augmentation_turn, whole = turn_speed.rows_of("M", passes, rounds, plain, 8, memory)
    assert (student.turn, augmentation_turn.turn, whole.turn) == ("student", "augmentation", "all")
    # Seconds an image: 3/8, 1/8, 2/8; then 6/8, 2/8, 4/8; then 12/16, 4/16, 8/16.
    assert student.ratio == Spread(1.5, 1.0, 2.0) and student.images_per_second == 4
    assert augmentation_turn.ratio == Spread(3.0, 2.0, 4.0) and augmentation_turn.images_per_second == 2
    assert whole.ratio == Spread(3.0, 2.0, 4.0) and whole.images_per_second == 2
    assert [row.bound for row in (student, augmentation_turn, whole)] == [1, 5 / 3, 11 / 6]
    assert whole.reached == 11 / 6 / 3
    assert [row.peak_memory for row in (student, augmentation_turn, whole)] == [5 * 2**20, 7 * 2**20, 7 * 2**20]
    assert cells(turn_speed.markdown([student]))[1] == [
        *("M", "student", "4", "1.50", "1.00 to 2.00", "3 F_s", "1.00", "67%", "5 MiB")
    ]


def test_turns_have_a_row_for_every_run_and_kind_of_turn(turn_section):
    rows = [(row["run"], row["turn"]) for row in turn_section[1]["turns"]]
    several = ("student", "augmentation", "all")
    expected = [(PLAIN, "student")]
    for run in ("TransInv, 1 teacher", "TransInv, 3 teachers", "TransInv as recommended", "TeachAugment"):
        expected += [(run, turn) for turn in several]
    for method in [name for name in METHODS if name != "supervised"]:
        turns = {"mutual": ("student, peer",), "hard": several}.get(method, ("student",))
        expected += [(METHODS[method].title, turn) for turn in turns]
    assert rows == expected


def test_plain_training_takes_once_its_own_time(turn_section):
    plain = turn_section[1]["turns"][0]
    assert plain["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert plain["bound"] == plain["reached"] == 1


def test_bounds_in_the_table_are_those_of_its_cycles_whatever_the_number_of_teachers(turn_section):
    bounds = {(row["run"], row["turn"]): row["bound"] for row in turn_section[1]["turns"]}
    for run in ("TransInv, 1 teacher", "TransInv, 3 teachers"):
        assert bounds[run, "all"] == (2 * 3 + 3 + 3) / (2 * 3)
    assert bounds["TransInv as recommended", "student"] == pytest.approx(1.3)
    assert bounds["TransInv as recommended", "all"] == pytest.approx(1.3 + 7 / 3 / 12)
    assert bounds["TeachAugment", "all"] == (2 * 3 + 2 + 2) / (2 * 3)
    assert bounds[METHODS["hard"].title, "all"] == 14 / 3


def test_markdown_and_numbers_of_turns_agree(turn_section):
    text, numbers = turn_section
    json.dumps(numbers)
    lines = cells(text)[1:]
    assert len(lines) == len(numbers["turns"])
    for line, row in zip(lines, numbers["turns"], strict=True):
        assert line[:2] == [row["run"], row["turn"]]
        ratio = row["ratio"]
        assert line[2:5] == [
            f"{row['images_per_second']:,.0f}",
            f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f} to {ratio['high']:.2f}",
        ]
        assert line[5:] == [row["passes"], f"{row['bound']:.2f}", f"{row['reached']:.0%}"]
        assert row["reached"] == row["bound"] / ratio["median"] and row["peak_memory"] is None


def test_runs_are_measured_in_whole_cycles_with_enough_turns_of_the_student(accelerator):
    config = replace(TINY, inner_steps=3)
    split = synthetic_split(8, 32, 3, 0, CPU)
    for method, cycle, turns_a_round in (("supervised", 1, 3), ("transinv", 4, 4), ("hard", 6, 6)):
        runner = Runner.start(Entry(method, method), config, accelerator, split)
        assert (runner.cycle, runner.turns_a_round) == (cycle, turns_a_round)
        played = [turn for turn, _ in runner.take_turns(12)]
        assert played == played[:cycle] * (12 // cycle) and played[:3] == [STUDENT] * 3


def test_everything_has_its_turn_in_every_round():
    calls = []
    works = {name: Work(lambda name=name: calls.append(name), CPU) for name in "abc"}
    figures = measure_in_rounds(works, 2, 1e-9, "")
    assert calls == [*"aabbcc", *"abc", *"abc"]  # warmed up, then two rounds
    assert {name: len(seconds) for name, seconds in figures.items()} == {"a": 2, "b": 2, "c": 2}


# Augmentation, corruptions, feeds


def test_augmentation_has_every_primitive_and_policy_and_its_markdown_agrees(accelerator):
    text, numbers = augmentation_speed.section(TINY, accelerator)
    json.dumps(numbers)
    for line, row, name in zip(cells(text)[1:], numbers["primitives"], PRIMITIVES, strict=True):
        assert row["primitive"] == name and line[0] == name.replace("_", " ")
        speeds = [f"{row[key]['median']:,.0f}" for key in ("forward", "forward_and_backward")]
        assert [line[1], line[3]] == speeds
    for line, row, name in zip(cells(text, 1)[1:], numbers["policies"], POLICIES, strict=True):
        assert row["policy"] == name and line[:2] == [name.replace("_", " "), f"{row['batched']:,.0f}"]
        if row["transform"] is None:
            assert line[2:] == ["–"] * 4
        else:
            assert line[2:4] == [row["transform"], f"{row['image_by_image']:,.0f}"]
            assert row["ratio"]["median"] == pytest.approx(row["batched"] / row["image_by_image"])


def test_what_stands_beside_a_policy_is_as_strong_and_takes_the_images():
    transforms = augmentation_speed.torchvision_transforms(PolicyConfig(), 32)
    assert set(transforms) == set(POLICIES) - {"strong", "fixed_aug", "corruption", "prime"}
    assert (transforms["randaugment"].num_ops, transforms["randaugment"].magnitude) == (2, 14)
    levels = picture_levels(3, 32, 0)
    for transform in transforms.values():
        for picture, image in zip(augmentation_speed.singly(transform, levels), levels, strict=True):
            made = augmentation_speed.functional.to_image(transform(picture))
            assert made.shape == image.shape and made.dtype == torch.uint8
    hidden = transforms["cutout"](torch.full((3, 32, 32), 9, dtype=torch.uint8))
    assert (hidden == 0).sum() == 3 * 16 * 16


def test_corruptions_keep_their_table():
    config = BenchmarkConfig(corruptions=("fog", "contrast"), threads=(1, 2))
    speeds = {"fog": [3800.0, 7600.0], "contrast": [65200.0, 65200.0]}
    expected = """
| images/s | 1 thread | 2 threads | authors, one core | ratio |
| --- | ---: | ---: | ---: | ---: |
| fog | 3,800 | 7,600 | 3,800 | 1.0 |
| contrast | 65,200 | 65,200 | 32,600 | 2.0 |
| all, one after another | 7,181 | 13,613 | – | – |
"""
    assert corruption_speed.markdown(speeds, config) == expected.strip()
    assert cells(corruption_speed.markdown(speeds, replace(config, image_size=64)))[0] == [
        *("images/s", "1 thread", "2 threads")
    ]


def test_feeds_have_a_row_each_and_their_markdown_agrees(accelerator):
    text, numbers = feed_speed.section(TINY, accelerator)
    json.dumps(numbers)
    names = ["resident", "streaming", "datasets + DataLoader, no worker", "datasets + DataLoader, one worker"]
    assert [row["feed"] for row in numbers["feeds"]] == names
    for line, row in zip(cells(text)[1:], numbers["feeds"], strict=True):
        alone, training, waiting = (row[key] for key in ("alone", "training", "waiting"))
        speeds = [f"{alone['median']:,.0f}", f"{alone['low']:,.0f} to {alone['high']:,.0f}"]
        assert line[:4] == [row["feed"], *speeds, f"{training['median']:,.0f}"]
        assert 0 < waiting["low"] <= waiting["median"] <= waiting["high"] < 1
        assert line[4:] == [f"{waiting['median']:.1%}", f"{waiting['low']:.1%} to {waiting['high']:.1%}"]
    lines, rows = cells(text, 1)[1:], numbers["photographs"]
    assert [line[0] for line in lines] == list(rows) and len(rows) == 6
    timm = rows[photograph_speed.TIMM]["median"]
    assert [line[3] for line in lines] == [f"{row['median'] / timm:.2f}" for row in rows.values()]
    memory = numbers["photograph_memory"]
    assert list(memory) == [photograph_speed.FIRST, photograph_speed.STREAMED]
    assert all(50 < found["before"] < found["peak"] < 20_000 for found in memory.values())
    peaks = [f"{found['peak']:,.0f} MB" for found in memory.values()]
    assert f"resident {peaks[0]}, streamed {peaks[1]}" in " ".join(text.split())
    assert photograph_speed.section(replace(TINY, photographs=0)) == ("", {})


def test_feeds_give_the_images_of_the_file(tmp_path):
    path = feed_speed.write_parquet(tmp_path, TINY)
    split = ResidentSplit.load(feed_speed.held(path), show_progress=False)
    assert torch.equal(split.images, picture_levels(24, 32, TINY.seed))
    assert split.labels.tolist() == [row % 3 for row in range(24)]
    with feed_speed.open_feeds(path, split, TINY, CPU) as opened:
        for name, draw in opened:
            batches = [draw() for _ in range(6)]
            images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
            assert images.dtype == torch.uint8 and labels.dtype == torch.int64
            order = [next(row for row in range(24) if torch.equal(split.images[row], image)) for image in images]
            assert sorted(order) == list(range(24)) and order != list(range(24)), name
            assert torch.equal(split.labels[order], labels)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no choice of cores on this system")
def test_photographs_are_measured_on_one_core(monkeypatch):
    def cores():
        return len(os.sched_getaffinity(0)), torch.get_num_threads(), stream_threads()

    def measure(*_):
        seen.append(cores())
        return {photograph_speed.TIMM: Spread(1.0, 1.0, 1.0)}

    seen, before = [], cores()
    monkeypatch.setattr(photograph_speed, "measure", measure)
    monkeypatch.setattr(photograph_speed, "peaks", lambda *_: (1.0, 2.0))
    photograph_speed.section(replace(TINY, photographs=1))
    assert seen == [(1, 1, 1)] and cores() == before


def test_every_row_makes_crops_of_photographs(tmp_path):
    size = photograph_speed.write_photographs(tmp_path, 8, 0)
    assert 20_000 < size < 200_000
    with ExitStack() as opened:
        for name, epoch in photograph_speed.epochs(tmp_path, TINY).items():
            batches = list(epoch(opened))
            assert [batch.shape for batch in batches] == [(4, 3, 224, 224)] * 2, name
            assert all(batch.dtype == torch.float32 for batch in batches)
            deviations = torch.cat(batches).std((2, 3))
            assert (deviations > 0.02).all(), f"{name}: of photographs, not of nothing"


def test_a_watched_feed_throws_away_what_was_read_ahead():
    drawn = iter(range(100))
    feed = feed_speed.WatchedFeed(4, lambda: next(drawn))
    assert feed.next_batch() == 0 and feed.waited > 0
    feed.use_up()
    assert feed.waited == 0 and feed.next_batch() == 6


# The way in


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sections": ("turn",)}, "turn: expected some of turns, launches"),
        ({"sections": ()}, "sections"),
        ({"methods": ("supervised",)}, f"supervised: expected some of {COMPARED[0]}"),
        ({"teacher_counts": (0,)}, "at least 1"),
        ({"teacher_counts": (3, 3)}, "each once"),
        ({"corruptions": ("rain",)}, "rain"),
        ({"threads": (0,)}, "at least 1"),
        ({"rounds": 0}, "at least 1"),
        ({"seconds": 0.0}, "seconds positive"),
        ({"seconds": float("inf")}, "seconds positive"),
        ({"image_size": 7}, "at least 8"),
        ({"batch_size": 3}, "multiple of 2"),
        ({"photographs": -1}, "photographs -1"),
        ({"feed_images": 100}, "at least batch_size, 128"),
        ({"output": "no/such/folder/numbers.json"}, "folder that exists"),
    ],
)
def test_bad_input_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        BenchmarkConfig(**given)


def test_what_a_section_does_not_need_is_not_asked_for():
    assert BenchmarkConfig(sections=("feeds",), batch_size=3).batch_size == 3
    assert BenchmarkConfig(methods=("augmix",), batch_size=3).batch_size == 3
    assert BenchmarkConfig(sections=("turns",), feed_images=1).feed_images == 1


def test_the_loop_is_as_asked():
    train = BenchmarkConfig(batch_size=64, channels_last=False, compile=True, seed=7).train
    assert (train.batch_size, train.channels_last, train.compile, train.seed) == (64, False, True, 7)


FLAGS = ["--student", "wrn10_1_cifar", "--num_classes", 3, "--batch_size", 4, "--inner_steps", 1, "--rounds", 1]
FLAGS += ["--seconds", 0.001, "--threads", 1]


def test_the_recipe_prints_and_writes_the_sections_it_was_asked_for(tmp_path):
    flags = ["--sections", "corruptions", "turns", "--corruptions", "contrast", "--methods", "augmix"]
    done = succeed(PYTHON, BENCHMARK, *FLAGS, *flags, "--output", "numbers.json", cwd=tmp_path)
    first, *rest = done.stdout.strip().splitlines()
    assert first.startswith("batch 4, 32 px, cpu, 1 thread of") and "student wrn10_1_cifar" in first
    assert [line for line in rest if line.startswith("#")] == ["## Turns", "## Corruptions"]
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert [row["run"] for row in numbers["turns"]] == [PLAIN, "AugMix"]
    assert list(numbers["images_per_second"]) == ["contrast"]
    assert numbers["config"]["batch_size"] == 4 and numbers["hardware"]["device"] == "cpu"
    assert torch.__version__.startswith(numbers["versions"]["torch"])


@pytest.mark.slow
def test_the_recipe_runs_whole_in_bfloat16(tmp_path):
    flags = [*FLAGS, "--teacher_counts", 2, "--feed_images", 16, "--photographs", 8, "--output", "numbers.json"]
    launcher = [*ACCELERATE, "--mixed_precision", "bf16"]
    done = succeed(launcher, BENCHMARK, *flags, cwd=tmp_path)
    headings = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert headings == ["## Turns", "## Launches", "## Augmentation", "## Corruptions", "## Feeds"]
    assert json.loads((tmp_path / "numbers.json").read_text())["hardware"]["mixed_precision"] == "bf16"


@pytest.mark.slow
def test_several_processes_are_refused_with_the_reason(tmp_path):
    done = launch(TWO_PROCESSES, BENCHMARK, *FLAGS, cwd=tmp_path, ACCELERATE_USE_CPU="true")
    assert done.returncode != 0 and "launched with 2 processes" in done.stderr


@pytest.mark.slow
def test_a_student_that_does_not_exist_is_refused(tmp_path):
    done = launch(PYTHON, BENCHMARK, "--sections", "turns", "--student", "wrn10_1_cifarr", cwd=tmp_path)
    assert done.returncode == 2 and "wrn10_1_cifarr" in done.stderr and "Traceback" not in done.stderr
