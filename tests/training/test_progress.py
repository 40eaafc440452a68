"""What a training says on stderr: a bar on a terminal, lines with names everywhere."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from hf_transinv.config import OutputConfig
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.evaluation import evaluate
from hf_transinv.formats import terminal
from hf_transinv.record import read_metrics
from hf_transinv.training.progress import Progress, teacher_titles
from tests.tiny_run import random_split, tiny_trainer, tiny_vit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_training_that_is_piped_says_lines_with_names_and_no_carriage_return(tmp_path, capfd):
    output = OutputConfig(eval_steps=4)
    tiny_trainer(tmp_path, max_steps=8, logging_steps=2, output=output).train()
    said = capfd.readouterr().err
    assert "\r" not in said
    share, loss = r"(\.\d\d|1\.00)", r"\d[\d.e-]*"
    learned = rf"r other {share} ema {share}  q {share}  most used: other -> \w+ {share}  ema -> \w+ {share}"
    learned += r"  \d+ img/s  \d\d:\d\d left"
    assert said.splitlines()[0] == "training    tiny: 8 steps; reading the first batch"
    lines = [line for line in said.splitlines() if line.startswith("step ")]
    assert [int(re.match(r"step (\d)/8  ", line)[1]) for line in lines] == [2, 4, 4, 6, 8, 8]
    assert re.fullmatch(rf"step 2/8  loss {loss}  {learned}", lines[0])
    assert re.fullmatch(rf"step 4/8  validation:  top-1 \d+\.\d  loss {loss}", lines[2])
    assert re.fullmatch(rf"step 6/8  loss {loss}  top-1 \d+\.\d  {learned}", lines[3])
    line = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert f"loss {line['student/total']:.3g} " in lines[0]
    assert f" q {sum(line['q']) / 2:.2f} ".replace(" 0.", " .") in lines[0]


def test_decoding_and_evaluating_show_no_bar_where_nobody_watches(capfd, monkeypatch):
    """A line before each, and where one lasts, a line now and then."""
    ResidentSplit.load(open_source("digits/target", split="test"))
    evaluate(tiny_vit(), random_split(12), corruptions=("contrast",), severities=(3,), batch_size=5)
    assert capfd.readouterr().err.splitlines() == [
        "decoding    split test of digits/target: 796 images",
        "evaluating  12 images under 2 conditions, the clean one included",
    ]
    monkeypatch.setattr(terminal, "_SECONDS", 0.0)
    evaluate(tiny_vit(), random_split(12), corruptions=("contrast",), severities=(3,), batch_size=5)
    said = capfd.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("evaluate contrast 3: ")]
    assert "\r" not in said and re.match(r"evaluate contrast 3: \d+/24, .*img/s, .* left", lines[-1])


def test_a_first_step_that_takes_long_says_so_and_what_it_waits_for(tmp_path, monkeypatch, capfd):
    objective = tiny_trainer(tmp_path).objective
    monkeypatch.setattr("hf_transinv.training.progress._LONG", 0.0)
    with Progress(objective, "TransInv", 79, 100, True, compiles=True) as progress:
        progress.advance()
        progress.advance()
    first, took, *rest = capfd.readouterr().err.splitlines()
    assert first == "training    TransInv: from step 79 to 100; the first steps compile the networks, for minutes"
    assert re.fullmatch(r" {12}the first step took \d+\.\d s", took) and not rest
    with Progress(objective, "TransInv", 0, 100, False) as progress:
        progress.advance()
    assert not capfd.readouterr().err


def test_the_bar_of_the_evaluation_counts_every_image_under_every_condition(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "100")
    evaluate(tiny_vit(), random_split(12), corruptions=("contrast",), severities=(1, 5), batch_size=5)
    assert "36/36" in sys.stderr.getvalue() and "img/s" in sys.stderr.getvalue()


def test_the_bar_is_also_shown_in_a_notebook(monkeypatch):
    cell = io.StringIO()  # no terminal
    monkeypatch.setattr(sys, "stderr", cell)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None)))
    evaluate(tiny_vit(), random_split(12), batch_size=5)
    shown = cell.getvalue()
    assert "12/12" in shown
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # a script that imports it
    evaluate(tiny_vit(), random_split(12), batch_size=5)
    assert "12/12" not in cell.getvalue().removeprefix(shown)


@pytest.mark.parametrize("columns", [80, 140])
def test_bar_and_lines_fit_a_terminal(columns, tmp_path, monkeypatch):
    objective = tiny_trainer(tmp_path).objective
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (columns, 24))
    progress = Progress(objective, "distillation + TransInv", 0, 19500, True)
    with progress:
        progress.log(10000, 1.8412, 12345.0, objective.observe(), 41.23)
        progress.bar.refresh()
    said = sys.stderr.getvalue()
    bar = [part for part in re.split(r"[\r\n]", said) if "19500, " in part][-1]
    assert len(bar) <= columns
    assert all(figure in bar for figure in ("loss 1.84", "top-1 41.2", "q .", "12345 img/s", " left"))
    lines = [line.strip() for line in re.split(r"[\r\n]", said) if "most used" in line or line.startswith("step ")]
    assert all(len(line) <= columns for line in lines)
    line = "  ".join(
        part.strip() for part in said.rpartition("step 10000")[2].splitlines()[: 3 if columns == 80 else 2]
    )
    assert re.search(r"most used: other -> \w+ [.\d]+  ema -> \w+ [.\d]+  12345 img/s  \d\d:\d\d left", line)


def test_teachers_go_by_what_tells_them_apart():
    assert teacher_titles(["model_cards/digits_elastic", "model_cards/digits_light", "ema"]) == [
        *("elastic", "light"),
        "ema",
    ]
    assert teacher_titles(["hf-hub:user/wrn28", "outputs/snow/student", "ema"]) == ["wrn28", "snow", "ema"]
    assert teacher_titles(["a/one", "b/one"]) == ["a/one", "b/one"]
    assert teacher_titles(["resnet18.a1_in1k"]) == ["resnet18.a1_in1k"]
