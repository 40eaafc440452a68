"""recipes/probe.py as users launch it: p of each teacher and seed, the table, the figure, and a second start."""

import json

import pytest

from hf_transinv.commands.probe import leading_teachers, severity_of
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
    most = result["leading_teachers"]
    assert most == leading_teachers(result["probes"]) and list(most) == ["contrast", "pixelate"]
    hits = sum(name == of_teacher for name, of_teacher in most.items())
    assert f"for {hits} of 2 corruptions" in done.stdout
    start = result["start"]
    for found, teacher in zip(start["teachers"], flags[1:3], strict=True):
        assert found["teacher"] == teacher and found["keep"].keys() == start["hard"].keys() == probe["p"].keys()
        assert found["least_keep"] == min(found["keep"], key=found["keep"].get).partition(":")[0]
    hits = sum(found["least_keep"] == found["own"] for found in start["teachers"])
    assert f"has the least KL for {hits} of 2 teachers" in done.stdout
    assert (folder / "out" / "probe.md").read_text() in done.stdout
    assert (folder / "out" / "figures" / "probe.png").stat().st_size > 1000


def test_which_teacher_gives_a_corruption_most_is_asked_by_the_mean_of_its_seeds():
    """Fog leads under both teachers, and more so under its own; in seed 1 alone it is the other way round."""
    p = {("a", 0): (0.9, 0.1), ("a", 1): (0.6, 0.4), ("b", 0): (0.6, 0.4), ("b", 1): (0.7, 0.3)}
    own = {"a": "fog", "b": "snow"}
    probes = [
        {"teacher": teacher, "seed": seed, "own": own[teacher], "p": {"fog:2": fog, "snow:1.5": snow}}
        for (teacher, seed), (fog, snow) in p.items()
    ]
    assert leading_teachers(probes) == {"fog": "fog", "snow": "snow"}
    assert leading_teachers(probes[:2]) == {}, "one teacher has none to be compared with"
    assert leading_teachers([{**probe, "own": "fog"} for probe in probes]) == {}
    other = [{**probe, "own": {"a": "fog", "b": "frost"}[probe["teacher"]]} for probe in probes]
    assert leading_teachers(other) == {"fog": "fog"}, "frost is no primitive"
    assert leading_teachers([{"teacher": "a", "seed": 0, "p": {"fog:2": 1.0}}]) == {}


def test_a_finished_probe_is_not_run_again(probed):
    folder, flags, _ = probed
    before = (folder / "out" / "probe.json").read_bytes()
    again = succeed(PYTHON, PROBE, *TINY, *flags, "--output_dir", "out", "--resume_from", "latest", cwd=folder)
    assert (folder / "out" / "probe.json").read_bytes() == before
    assert "evaluate" not in again.stderr


@pytest.mark.parametrize(
    ("rises", "rise", "expected"),
    [
        ((0.2, 0.4, 0.8, 1.0, 1.2), 0.4, 2),
        ((0.2, 0.4, 0.8, 1.0, 1.2), 0.5, 2.25),
        ((0.2, 0.4, 0.8, 1.0, 1.2), 0.05, 0.25),
        ((0.2, 0.4, 0.3, 0.2, 0.8), 0.35, 1.75),
        ((-0.1, 0.2, 0.3, 0.3, 0.4), 0.05, 1.5),
        ((9.0, 9.0, 9.0, 9.0, 9.0), 0.01, 0.01),
        ((0.2, 0.4, 0.8, 1.0, 1.2), 1.3, None),
    ],
)
def test_the_lowest_severity_that_costs_so_much(rises, rise, expected):
    assert severity_of(rises, rise) == expected


def test_a_matched_probe_says_and_records_its_severities(tmp_path):
    """The corruptions are about as hard for the student as it starts as was asked for."""
    plain = REPOSITORY / "model_cards" / "digits_elastic"
    flags = [*TINY, "--dataset", "digits/source", "--student", plain, "--student_init", "pretrained"]
    flags += ["--teachers", tiny_teachers(tmp_path)[0], "--output_dir", "out"]
    flags += ["--primitives", "contrast:3", "snow:5", "--matched_rise", 0.3]
    done = succeed(PYTHON, PROBE, *flags, cwd=tmp_path)
    result = json.loads((tmp_path / "out" / "probe.json").read_text())
    matched, hard = result["matched"], result["start"]["hard"]
    assert [name.partition(":")[0] for name in matched["primitives"]] == ["contrast", "snow"]
    assert list(result["probes"][0]["p"]) == matched["primitives"] == list(hard)
    # Of 178 images few are mistaken, so that which have the higher severity matters.
    assert all(0.1 < value - matched["clean"] < 0.7 for value in hard.values())
    assert "matched     0.3 nats above " in done.stdout and all(name in done.stdout for name in matched["primitives"])
    refused = launch(PYTHON, PROBE, *flags, "--matched_rise", 50, "--output_dir", "no", cwd=tmp_path)
    assert refused.returncode == 2 and "raise the student's cross-entropy" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--matched_rise", 0], "in nats, above 0"),
        (["--matched_rise", 1, "--primitives", "contrast:3", "geometric"], "geometric have no severity"),
        (["--primitives", "contrast:1", "contrast:5"], "primitives contrast:1, contrast:5"),
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
