"""The notebook, run as Jupyter would run it: its code cells one after another, in one namespace."""

import json
import sys

import matplotlib as mpl
import pytest

from tests.launching import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))


@pytest.fixture
def no_window():
    """Figures are drawn, and shown to nobody."""
    backend = mpl.get_backend()
    mpl.use("Agg")
    yield
    sys.modules["matplotlib.pyplot"].close("all")
    mpl.use(backend)


def code_of(path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert {(len(cell["outputs"]), cell["execution_count"]) for cell in cells if cell["cell_type"] == "code"} == {
        (0, None)
    }


@pytest.mark.slow
def test_the_notebook_of_the_main_job_runs(no_window, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = code_of(REPOSITORY / "examples" / "multi_teacher.ipynb")
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), namespace)
    learned, results = namespace["learned"], namespace["results"]
    assert len(learned["r"]) == len(learned["q"]) == len(learned["p"]) == 3
    assert sum(learned["r"]) == pytest.approx(1)
    # What the notebook says: the student does not mind what a teacher does not mind.
    with_teachers, alone = results["TransInv"], results["fine-tuning"]
    assert with_teachers["clean"]["top1"] > 80
    assert with_teachers["corruption_mean"] > alone["corruption_mean"] + 3
    assert not list(tmp_path.iterdir())
    assert "contrast" in capsys.readouterr().out
