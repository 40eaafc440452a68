"""recipes/hard_toy.py: its premise, exactly; and the whole of it in a few steps, as a user starts it."""

import json
import sys

import pytest
import torch

from hf_transinv.commands import hard_toy as toy
from hf_transinv.data.transforms import to_float
from hf_transinv.errors import InputError
from tests.launching import PYTHON, REPOSITORY, succeed

TOY = REPOSITORY / "recipes" / "hard_toy.py"
ROWS = ["teacher", "plain distillation", "augmenter, untrained", "random warps, whole range", "HARD"]


def test_the_largest_shift_leaves_the_digits_whole():
    images = toy.digits("test").images
    assert images.shape[1:] == (3, toy.SIDE, toy.SIDE)
    for y, x in toy.DIRECTIONS:
        moved = torch.roll(images, (toy.MARGIN * y, toy.MARGIN * x), (2, 3))
        assert torch.equal(moved.sum((1, 2, 3)), images.sum((1, 2, 3)))
        rows = torch.arange(toy.SIDE) + toy.MARGIN * y
        inside = (rows >= 0) & (rows < toy.SIDE)
        assert moved[:, :, rows[inside]].sum() == images[:, :, inside].sum() == images.sum() or y == 0


def test_the_teacher_is_shift_invariant_untrained_and_the_student_is_not():
    images = to_float(toy.digits("test").images[:20])
    teacher, student = (toy.classifier(build, 5, 0).eval() for build in (toy.invariant_network, toy.perceptron))
    for y, x in toy.DIRECTIONS:
        moved = torch.roll(images, (3 * y, 3 * x), (2, 3))
        torch.testing.assert_close(teacher(moved), teacher(images), rtol=1e-5, atol=1e-6)
        assert (student(moved) - student(images)).abs().max() > 1e-2


def test_the_accuracy_of_a_model_that_looks_at_nothing():
    split = toy.digits("test")
    constant = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * toy.SIDE**2, 5))
    with torch.no_grad():
        constant[1].weight.zero_()
        constant[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]))
    ones = 100 * (split.labels == 1).float().mean().item()
    assert toy.accuracy_by_shift(constant, split) == pytest.approx([ones] * (toy.MARGIN + 1), abs=1e-3)


def test_the_summary_by_hand():
    accuracies = {0: [90.0, 10.0, 20.0, 30.0, 40.0], 1: [94.0, 30.0, 20.0, 30.0, 40.0]}
    rows = toy.summary({seed: {"HARD": {"accuracy": curve}} for seed, curve in accuracies.items()})
    assert rows["HARD"]["mean"] == pytest.approx([92.0, 20.0, 20.0, 30.0, 40.0, 27.5])
    assert rows["HARD"]["deviation"][0] == pytest.approx(8**0.5)
    assert "| HARD | 92.0 ± 2.8 | 20.0 ± 14.1 |" in toy.markdown(rows, 2)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    config = REPOSITORY / "recipes" / "configs" / "hard_toy.yaml"
    flags = ["--config", config, "--seeds", 0, 3, "--max_steps", 40, "--teacher_steps", 80, "--batch_size", 32]
    return folder, succeed(PYTHON, TOY, *flags, "--output_dir", "out", cwd=folder)


def test_a_short_run_writes_everything(ran):
    folder, done = ran
    result = json.loads((folder / "out" / "hard_toy.json").read_text())
    assert list(result["rows"]) == ROWS and list(result["seeds"]) == ["0", "3"]
    table = (folder / "out" / "hard_toy.md").read_text()
    assert table in done.stdout and all(f"| {row} |" in table for row in ROWS)
    assert (folder / "out" / "hard_toy.png").stat().st_size > 5000
    hard = result["seeds"]["0"]["HARD"]["learned"]
    assert hard["switches"] > 0 and result["config"]["max_steps"] == 40


def test_the_teacher_hands_on_nothing_by_plain_distillation(ran):
    """After 40 steps already: the teacher is as good on shifted images, the perceptron is not."""
    rows = json.loads((ran[0] / "out" / "hard_toy.json").read_text())["rows"]
    teacher, plain = rows["teacher"]["mean"], rows["plain distillation"]["mean"]
    assert teacher == pytest.approx([teacher[0]] * 6, abs=0.1) and teacher[0] > 80
    assert plain[0] > 60 and plain[4] < 45


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seeds", 1, 1], "each once"),
        (["--teacher_steps", 0], "teacher_steps must be"),
        (["--hard_lower", 2], "hard_lower"),
    ],
)
def test_contradictions_are_refused(tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hard_toy.py", *map(str, flags), "--output_dir", "out"])
    with pytest.raises(InputError, match=said):
        toy.main()
    assert not (tmp_path / "out").exists()
