"""What turns launch: the section, and that no turn of a method waits for the device."""

import json

import pytest
import torch
from accelerate import Accelerator

from hf_transinv.benchmark import launches
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.pretended_device import DEVICE, pretended_device
from hf_transinv.benchmark.runners import PLAIN, Entry, build_objective, build_trainer, entries
from hf_transinv.benchmark.synthetic import synthetic_split
from hf_transinv.errors import InputError

TINY = BenchmarkConfig(
    student="wrn10_1_cifar", num_classes=3, batch_size=24, inner_steps=2, teacher_counts=(1, 3), sections=("launches",)
)
TRANSINV = ("TransInv, 2 teachers", "TransInv as recommended")
HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def test_everything_is_as_it_was_afterwards(accelerator):
    before = torch.Generator, torch._C._group_tensors_by_device_and_dtype
    with pretended_device(accelerator):
        assert accelerator.device == DEVICE == Accelerator().device
        x = torch.ones(2, device=DEVICE)
    assert accelerator.device == Accelerator().device == x.device == HOST
    assert before == (torch.Generator, torch._C._group_tensors_by_device_and_dtype)


@pytest.mark.parametrize("method", ["mutual", "augmix", "teachaugment", "hard"])
def test_turns_compute_what_they_compute_on_the_cpu(accelerator, method):
    """Not TransInv: it draws its latents and its noise on the device, which has other numbers."""

    def trained(device):
        objective = build_objective(Entry(method, method), TINY, device)
        trainer = build_trainer(objective, TINY, accelerator, synthetic_split(96, 32, 3, 0, device))
        for _ in range(4):
            trainer.take_turn()
        return {name: player.state_dict() for name, player in objective.players.items()}

    expected = trained(HOST)
    with pretended_device(accelerator):
        found = trained(DEVICE)
    torch.testing.assert_close(found, expected)


def test_two_counts_are_the_same(accelerator):
    entry = entries(TINY)[2]
    first, second = (launches.count_turns(entry, TINY, accelerator) for _ in range(2))
    assert first == second and [len(counts) for counts in first.values()] == [2, 1]


def test_the_section_has_a_row_for_every_kind_of_turn_and_its_markdown_agrees(accelerator):
    config = BenchmarkConfig(**{**vars(TINY), "methods": ("transinv", "mutual"), "teacher_counts": (2,)})
    text, found = launches.section(config, accelerator)
    rows = json.loads(json.dumps(found))["launches"]
    learned = [(run, turn) for run in TRANSINV for turn in ("student", "augmentation")]
    kinds = [(PLAIN, "student"), *learned]
    assert [(row["run"], row["turn"]) for row in rows] == [*kinds, ("mutual learning", "student, peer")]
    assert rows[0]["ratio"] == rows[0]["loop_ratio"] == 1
    lines = [line.strip("| ").split(" | ") for line in text.split("\n\n")[0].splitlines()[2:]]
    for line, row in zip(lines, rows, strict=True):
        assert row["ratio"] == row["kernels"] / rows[0]["kernels"]
        assert row["loop_ratio"] == row["loop_kernels"] / rows[0]["loop_kernels"]
        of_kernels = [f"{row['kernels']:,}", f"{row['ratio']:.2f}", f"{row['loop_kernels']:,}"]
        counted = [*of_kernels, f"{row['loop_ratio']:.2f}", str(row["copies"]), str(row["waits"])]
        assert line == [row["run"], row["turn"], *counted]
        assert sum(row["places"].values()) >= max(row["copies"], row["waits"])


def test_a_batch_that_ait_cannot_halve_is_refused():
    with pytest.raises(InputError, match="multiple of 2"):
        BenchmarkConfig(sections=("launches",), batch_size=3)


# No hidden wait

WAITING = {"transinv": "objectives/transinv.py reads p, q and r, once after each turn of the augmentation"}
ENTRIES = [
    pytest.param(
        entry,
        id=entry.title,
        marks=[pytest.mark.xfail(strict=True, raises=AssertionError, reason=WAITING[entry.method])]
        if entry.method in WAITING
        else [],
    )
    for entry in entries(TINY)
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_turn_waits_for_the_device(accelerator, entry):
    # Losses are looked at once only on the CPU, elsewhere with each line of metrics: a turn alone looks at none.
    counts = launches.count_turns(entry, TINY, accelerator)
    waits = {", ".join(turn): dict(each.places) for turn, seen in counts.items() for each in seen if each.waits}
    # The images' numbers, the crops (two variants have two), what the method draws, and which images are pairs.
    copies = max(each.copies for seen in counts.values() for each in seen)
    most = 2 + (entry.method != "supervised") + entry.is_recommended
    if copies > most:
        pytest.fail(f"{copies} copies in a turn, more than {most}")  # also where a wait is expected
    assert not waits


def test_no_turn_of_teachaugment_waits_where_copies_augment(accelerator, monkeypatch):
    def with_copies(*parts):
        objective = build_objective(*parts)
        objective.replay.copy_steps = 1
        return objective

    monkeypatch.setattr(launches, "build_objective", with_copies)
    counts = launches.count_turns(Entry("TeachAugment", "teachaugment"), TINY, accelerator)
    assert all((each.waits, each.copies) == (0, 3) for seen in counts.values() for each in seen)
