"""A machine is checked part by part: one that fails, hangs or is skipped ends no other, and the files are whole."""

import json
from pathlib import Path

import pytest
import torch

from hf_transinv.commands import gpu_check, limited_parts
from hf_transinv.commands.gpu_check import PARTS, GPUCheckConfig, run
from hf_transinv.commands.limited_parts import Found, LimitedParts, Part
from hf_transinv.errors import InputError
from tests.launching import PYTHON, REPOSITORY, succeed

RECIPE = REPOSITORY / "recipes" / "gpu_check.py"


def python(*lines: str):
    """A part that runs a program."""

    def part(check: LimitedParts, found: Found) -> None:
        said = check.command(found, "-c", "\n".join(lines))
        found.lines = [] if said is None else [said]

    return part


def taken(folder: Path, part: Part, minutes: float = 1.0) -> Found:
    return LimitedParts(folder, minutes, "digits", tiny=True).take("it", part)


def test_a_part_that_is_done_says_what_it_found(tmp_path):
    found = taken(tmp_path, Part(1.0, False, python("print('warm')")))
    assert (found.state, found.reason, found.lines) == ("done", "", ["warm\n"])


def test_a_part_that_fails_says_why(tmp_path):
    found = taken(tmp_path, Part(1.0, False, python("raise SystemExit('no such luck')")))
    assert found.state == "failed" and "exit code 1: no such luck (see it.log)" in found.reason


def test_a_part_that_hangs_is_stopped_at_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(limited_parts, "_GRACE", 0.5)
    deaf = python("import signal, time", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "time.sleep(60)")
    found = taken(tmp_path, Part(1.0, False, deaf), minutes=0.03)
    assert found.state == "stopped" and found.seconds < 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_is_skipped_without_one(tmp_path):
    found = taken(tmp_path, Part(1.0, True, python("print(1)")))
    assert (found.state, found.reason) == ("skipped", "there is no CUDA device")


def test_the_files_are_written_after_each_part(tmp_path, monkeypatch):
    parts = {"good": Part(0.5, False, python("print(7)")), "bad": Part(1.0, False, python("1 / 0"))}
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    seen = []
    for found in run(GPUCheckConfig(str(tmp_path))):
        seen.append(found.part)
        noted = json.loads((tmp_path / "gpu_check.json").read_text())
        text = (tmp_path / "gpu_check.md").read_text()
        assert [part["part"] for part in noted["parts"]] == seen
        assert all(f"| {part} |" in text for part in seen)
    assert seen == ["good", "bad"] and "ZeroDivisionError" in text and "## good\n\n7" in text


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="parts rain: expected some of tests, waits"):
        GPUCheckConfig(parts=("rain",))


def test_the_recipe_resumes_to_the_bit_and_names_what_it_skipped(tmp_path):
    flags = ["--tiny", "true", "--parts", "tests", "resume", "--output_dir", "out"]
    said = succeed(PYTHON, RECIPE, *flags, cwd=tmp_path).stdout
    noted = {part["part"]: part for part in json.loads((tmp_path / "out" / "gpu_check.json").read_text())["parts"]}
    assert noted["resume"]["state"] == "done", noted["resume"]["reason"]
    assert set(noted["resume"]["numbers"].values()) == {0.0}
    assert torch.cuda.is_available() or "tests: skipped" in said
    assert set(noted) == {"tests", "resume"} and set(noted) < set(PARTS)
