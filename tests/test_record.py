"""The record of a run: run.json and metrics.jsonl, whole whatever happens to the process that writes them."""

import json
import os
import re
from importlib.metadata import version

import pytest

from hf_transinv.errors import InputError
from hf_transinv.files import json_text, write_json
from hf_transinv.record import Metrics, RunRecord, environment, read_metrics


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    assert os.listdir(tmp_path) == ["run.json"]


def test_lists_of_numbers_take_one_line_of_json():
    content = {
        "numbers": [1, -2.5e-8, None, True],
        "rows": [[0, 1, 17], [1, 1, 200]],
        "texts": ["[\n  1,\n  2\n]", "a"],
        "none": [],
        "nested": [{"p": [0.5]}, 3],
        "infinite": [float("inf")],
    }
    text = json_text(content)
    assert json.loads(text) == content and text.endswith("}\n")
    lines = [line.strip() for line in text.splitlines()]
    assert '"numbers": [1, -2.5e-08, null, true],' in lines and "[0, 1, 17]," in lines and "[1, 1, 200]" in lines
    assert '"p": [0.5]' in lines and '"a"' in lines and '"infinite": [Infinity]' in lines
    assert json_text([1, 2]) == "[1, 2]\n"


def test_the_environment_says_what_ran_where():
    found = environment()
    assert found["versions"]["torch"] == version("torch")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", found["versions"]["python"])
    assert found["hardware"]["cpu_cores"] >= 1
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{12}\+?", found["commit"])


def test_a_run_is_written_and_read_again(tmp_path):
    record = RunRecord(tmp_path, "multi_teacher", {"seed": 3, "teachers": ["a", "ema"]})
    assert not (tmp_path / "run.json").exists()
    record.update(rows={})
    record.update(status="finished", rows={"TransInv": {"steps": 4}})
    read = RunRecord.read(tmp_path)
    assert (read["recipe"], read["status"], read["config"]["seed"]) == ("multi_teacher", "finished", 3)
    assert read["rows"] == {"TransInv": {"steps": 4}} and read["seconds"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", read["started"])


@pytest.mark.parametrize("content", [None, "", "{", b"\xff"])
def test_a_folder_without_a_readable_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match="holds no run"):
        RunRecord.read(tmp_path)


def test_metrics_are_appended_line_by_line(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    assert read_metrics(metrics.path) == []
    metrics.append(step=1, p=[[0.5, 0.5]])
    assert read_metrics(metrics.path) == [{"step": 1, "p": [[0.5, 0.5]]}]
    metrics.append(step=2)
    assert [line["step"] for line in read_metrics(metrics.path)] == [1, 2]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_resumed_run_forgets_the_future_it_trains_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path)
    for step in (1, 2, 3, 4):
        first.append(step=step)
    resumed = Metrics(path, step=2)
    resumed.append(step=3, again=True)
    assert read_metrics(path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "los')
    assert read_metrics(path) == [{"step": 1}]
    Metrics(path, step=2).append(step=2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
