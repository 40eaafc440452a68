"""recipes/probe.py as users launch it: p of each teacher and seed, the table, the figure, and a second start."""

import json

import pytest

from tests.launching import PYTHON, REPOSITORY, launch, succeed, tiny_teachers

PROBE = REPOSITORY / "recipes" / "probe.py"
TINY = ["--dataset", "digits/target", "--image_size", 32, "--student", "wrn10_1_cifar", "--batch_size", 16]
TINY += ["--primitives", "contrast:3", "pixelate:5", "--max_steps", 8, "--inner_steps", 2]
TINY += ["--eval_corruptions", "none"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    flags = ["--teachers", *tiny_teachers(folder), "--own", "contrast", "pixelate", "--seeds", 0, 2]
    done = succeed(PYTHON, PROBE, *TINY, *flags, "--output_dir", "out", cwd=folder)
    return folder, flags, done


def test_every_teacher_and_seed_has_its_p(probed):
    folder, flags, done = probed
    result = json.loads((folder / "out" / "probe.json").read_text())
    assert result["estimator"] == "expectation"
    assert [(probe["teacher"], probe["seed"]) for probe in result["probes"]] == [
        (teacher, seed) for teacher in flags[1:3] for seed in (0, 2)
    ]
    for probe in result["probes"]:
        assert set(probe["p"]) == {"contrast:3", "pixelate:5"}
        assert sum(probe["p"].values()) == pytest.approx(1, abs=1e-5)
        assert max(probe["p"].values()) > 0.5, "p has not moved"
        assert probe["own_is_largest"] == (probe["largest"] == probe["own"])
        assert probe["p"][{"contrast": "contrast:3", "pixelate": "pixelate:5"}[probe["largest"]]] > 0.5
    assert len({tuple(probe["p"].values()) for probe in result["probes"]}) == 4, "seeds and teachers must differ"
    hits = sum(probe["own_is_largest"] for probe in result["probes"])
    assert f"largest p in {hits} of 4 probes" in done.stdout
    assert (folder / "out" / "probe.md").read_text() in done.stdout
    assert (folder / "out" / "figures" / "probe.png").stat().st_size > 1000


def test_a_finished_probe_is_not_run_again(probed):
    folder, flags, _ = probed
    before = (folder / "out" / "probe.json").read_bytes()
    again = succeed(PYTHON, PROBE, *TINY, *flags, "--output_dir", "out", "--resume_from", "latest", cwd=folder)
    assert (folder / "out" / "probe.json").read_bytes() == before
    assert "evaluate" not in again.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--own", "contrast"], "1 corruptions for 2 teachers"),
        (["--own", "rain", "contrast"], "Unknown corruption 'rain'"),
        (["--seeds", 1, 1], "each once"),
    ],
)
def test_contradictions_are_refused(tmp_path, flags, said):
    done = launch(PYTHON, PROBE, *TINY, "--teachers", "ema", "ema", *flags, "--output_dir", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
