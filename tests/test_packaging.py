"""What pip installs, built here and used without the checkout."""

import re
import subprocess
from pathlib import Path

import pytest

from hf_transinv.record import RunRecord
from tests.launching import PYTHON, REPOSITORY, environment

CONFIGS = sorted((REPOSITORY / "recipes" / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The library as it lies in site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "info").mkdir()
    command = [*PYTHON, "setup.py", "-q", "egg_info", "--egg-base", str(folder / "info")]
    command += ["build", "--build-base", str(folder / "build")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "build" / "lib"


def test_every_module_and_everything_that_configurations_name_is_in_it(installed):
    modules = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "hf_transinv").rglob("*.py")}
    assert {path.relative_to(installed) for path in installed.rglob("*.py")} == modules | {
        Path("hf_transinv_start.py")
    }
    assets = installed / "hf_transinv" / "assets"
    for kind in ("configs", "accelerate"):
        shipped = {path.name: path.read_text() for path in (assets / kind).iterdir()}
        assert shipped == {path.name: path.read_text() for path in (REPOSITORY / "recipes" / kind).glob("*.yaml")}
    named = set(re.findall(r"model_cards/(\w+)[\],\s]", "".join(path.read_text() for path in CONFIGS)))
    assert {path.name for path in (assets / "model_cards").iterdir()} == named >= {"digits_elastic", "digits_light"}
    for name in named:
        files = {path.name for path in (assets / "model_cards" / name).iterdir()}
        assert files == {"config.json", "model.safetensors", "run.json"}
    assert {path.name for path in (installed / "hf_transinv" / "templates").iterdir()}
    assert (installed / "hf_transinv" / "data" / "digits" / "digits.parquet").is_file()


@pytest.mark.parametrize("flags", [[], ["--config", "digits"]], ids=["embedded default", "by its name"])
def test_it_runs_from_an_empty_folder(installed, tmp_path, flags):
    few = ["--max_steps", "2", "--baselines", "--eval_corruptions", "none", "--output_dir", "out"]
    command = [*PYTHON, "-m", "hf_transinv.commands.cli", "multi-teacher", *flags, *few]
    env = environment(tmp_path) | {"PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"the copy that comes with the library is read, {installed}" in done.stderr
    run = RunRecord.read(tmp_path / "out")
    assert run["commit"] is None and run["command"].startswith("transinv multi-teacher ")
    assert [teacher.get("trained_on") for teacher in run["teachers"][:2]] == [
        ["elastic_transform"],
        ["contrast", "brightness"],
    ]
