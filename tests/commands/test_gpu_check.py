"""A machine is checked part by part: one that fails or hangs ends no other, and what was measured stays."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import save_file

from hf_transinv.commands import gpu_check, gpu_figures, gpu_parts
from hf_transinv.commands.gpu_check import GPUCheckConfig, markdown, run
from hf_transinv.commands.gpu_parts import PARTS, ROWS
from hf_transinv.commands.limited_parts import Found, LimitedParts, Part
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.errors import InputError
from hf_transinv.formats.json_lines import JSONLines, read_json_lines
from hf_transinv.objectives.registry import LEARNED, METHODS
from tests.launching import PYTHON, REPOSITORY, succeed

RECIPE = REPOSITORY / "recipes" / "gpu_check.py"
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def program(*lines: str, show=lambda figures: [str(len(figures))]) -> Part:
    """A part that runs a program, which may write figures to FILE."""

    def go(check: LimitedParts, found: Found) -> None:
        check.command(found, "-c", "\n".join(lines), variables={"FILE": str(check.figures(found.part))})

    return Part(1.0, False, go, show)


def figures(count: int) -> str:
    """Lines that write figures, and another one that is cut off."""
    lines = "".join(json.dumps({"figure": f"speed {number}", "value": number}) + "\n" for number in range(count))
    return f"import os; open(os.environ['FILE'], 'a').write({lines!r} + '{{\"figure\": \"sp')"


def taken(folder: Path, part: Part, minutes: float = 1.0) -> Found:
    return LimitedParts(folder, minutes).take("it", part)


# Parts


def test_a_part_that_is_done_has_its_figures(tmp_path):
    found = taken(tmp_path, program(figures(2)))
    assert (found.state, found.reason, found.lines, found.log) == ("done", "", ["2"], [])
    assert [line["value"] for line in found.figures] == [0, 1]


def test_a_part_that_fails_says_its_last_lines(tmp_path):
    found = taken(tmp_path, program("print('warming up')", "raise SystemExit('no such luck')"))
    assert (found.state, found.reason, found.lines) == ("failed", "exit code 1", [])
    assert found.log == ["warming up", "no such luck"]


def test_a_part_that_fails_in_this_process_ends_no_other(tmp_path):
    def go(check, found):
        raise ZeroDivisionError("by zero")

    found = taken(tmp_path, Part(1.0, False, go))
    assert (found.state, found.reason) == ("failed", "ZeroDivisionError: by zero")
    assert found.log[0].startswith("Traceback")


def test_a_figure_that_failed_is_named_and_the_others_stay(tmp_path):
    failed = {"figure": "AugMix", "failed": "OutOfMemoryError: all of it"}
    found = taken(tmp_path, program(figures(2).replace(' + \'{"figure": "sp\'', f" + {json.dumps(failed)!r}")))
    assert found.state == "partly"
    assert found.reason == "2 figures are there; AugMix: OutOfMemoryError: all of it"


def test_what_a_part_had_measured_at_its_limit_stays(tmp_path):
    found = taken(tmp_path, program(figures(3), "import time; time.sleep(60)"), minutes=0.05)
    assert (found.state, found.lines) == ("partly", ["3"])
    assert found.reason == "3 figures are there; stopped at its limit of 3 s" and found.seconds < 20


def test_a_part_without_a_figure_at_its_limit_has_failed(tmp_path):
    found = taken(tmp_path, program("import time; print('hm', flush=True); time.sleep(60)"), minutes=0.03)
    assert (found.state, found.reason, found.log) == ("failed", "stopped at its limit of 2 s", ["hm"])


SLEEPERS = """
import os, signal, subprocess, sys, time
{deaf}
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
open(os.environ["FILE"] + ".part", "w").write(" ".join(str(child.pid) for child in children))
os.replace(os.environ["FILE"] + ".part", os.environ["FILE"] + ".pids")
time.sleep({seconds})
"""


def survivors(folder: Path) -> list[int]:
    """Of the children that a program has started."""
    pids = [int(pid) for pid in (folder / "it.jsonl.pids").read_text().split()]
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("deaf", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_the_children_of_a_launcher_end_with_it_at_its_limit(tmp_path, deaf):
    """One is of its process group; the other has left it, as torchrun's workers do."""
    found = taken(tmp_path, program(SLEEPERS.format(deaf=deaf, seconds=600)), minutes=0.05)
    assert found.reason.startswith("stopped at its limit") and found.seconds < 20
    assert survivors(tmp_path) == []


def test_the_children_of_a_launcher_end_with_it_when_the_check_itself_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "PARTS", {"it": program(SLEEPERS.format(deaf="", seconds=600))})
    monkeypatch.setattr(sys, "argv", ["gpu-check", "--output_dir", str(tmp_path)])

    def stop():
        while not (tmp_path / "it.jsonl.pids").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop, daemon=True).start()
    try:
        with pytest.raises(SystemExit) as end:
            gpu_check.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 128 + signal.SIGTERM and survivors(tmp_path) == []


@NO_GPU
def test_what_needs_a_gpu_is_skipped_without_one(tmp_path):
    found = taken(tmp_path, Part(1.0, True, lambda check, found: None))
    assert (found.state, found.reason) == ("skipped", "there is no CUDA device")


# The whole check


def test_the_files_are_written_after_each_part_and_the_same_command_goes_on(tmp_path, monkeypatch):
    parts = {"good": program(figures(2)), "bad": program(figures(1), "1 / 0")}
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    seen = []
    for found in run(GPUCheckConfig(str(tmp_path))):
        seen.append(found.part)
        noted = json.loads((tmp_path / "gpu_check.json").read_text())
        text = (tmp_path / "gpu_check.md").read_text()
        assert [part["part"] for part in noted["parts"]] == seen
        assert all(f"| {part} |" in text for part in seen)
    assert seen == ["good", "bad"] and "ZeroDivisionError" in text and "## good\n\n2" in text
    assert [part["state"] for part in noted["parts"]] == ["done", "failed"]

    (tmp_path / "good.log").write_text("as it was")
    good, bad = run(GPUCheckConfig(str(tmp_path), parts=("good", "bad")))
    assert (tmp_path / "good.log").read_text() == "as it was"  # it was not taken again
    assert [good.state, bad.state] == ["done", "failed"] and noted["parts"][0]["ended"] == good.ended


def test_figures_of_other_versions_are_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "PARTS", {"it": program(figures(1))})
    monkeypatch.setattr(gpu_check, "environment", lambda: {"versions": {"torch": "1"}, "hardware": {}, "commit": None})
    monkeypatch.setattr(gpu_check, "markdown", lambda record, parts: "")
    list(run(GPUCheckConfig(str(tmp_path))))
    (tmp_path / "it.log").write_text("as it was")
    monkeypatch.setattr(gpu_check, "environment", lambda: {"versions": {"torch": "2"}, "hardware": {}, "commit": None})
    (found,) = run(GPUCheckConfig(str(tmp_path)))
    assert (tmp_path / "it.log").read_text() == "" and len(found.figures) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parts": ("rain",)}, "parts rain: expected some of tests, waits"),
        ({"minutes": 0}, "minutes must be positive"),
        ({"local_hub": "nowhere"}, "local_hub 'nowhere' is not a folder"),
        ({"teachers": ("ema", "./nowhere")}, "'./nowhere' does not exist"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        GPUCheckConfig(**options)


@pytest.mark.parametrize(
    ("name", "said"),
    [("compare_ait_table3", "rows 'TransInv': expected one of"), ("compare_transinv_table1", "table1' has groups")],
)
def test_a_comparison_of_other_rows_is_refused_before_anything_runs(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        next(run(GPUCheckConfig(str(tmp_path), run=name)))


@pytest.mark.slow
def test_the_recipe_resumes_to_the_bit_and_names_what_it_skipped(tmp_path):
    flags = ["--tiny", "true", "--parts", "tests", "waits", "resume", "--output_dir", "out"]
    said = succeed(PYTHON, RECIPE, *flags, cwd=tmp_path).stdout
    noted = {part["part"]: part for part in json.loads((tmp_path / "out" / "gpu_check.json").read_text())["parts"]}
    assert noted["resume"]["state"] == "done", (noted["resume"]["reason"], noted["resume"]["log"])
    (line,) = noted["resume"]["figures"]
    assert set(line["difference"].values()) == {0.0} and len(line["difference"]) > 1
    for part in ("tests", "waits"):
        assert torch.cuda.is_available() or f"{part}: skipped, 0 s there is no CUDA device" in said
    assert set(noted) == {"tests", "waits", "resume"}


def test_weights_that_differ_are_seen(tmp_path):
    for name, value in (("one", 1.0), ("other", 1.0 + 2**-20)):
        save_file({"a": torch.ones(3), "b": torch.tensor([2.0, value]), "empty": torch.ones(0)}, tmp_path / name)
    assert gpu_parts.largest_difference(tmp_path / "one", tmp_path / "one") == 0
    assert gpu_parts.largest_difference(tmp_path / "one", tmp_path / "other") == 2**-20


# Figures


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def measured(accelerator, tmp_path_factory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("figures")
    for section in ("turns", "losses"):
        gpu_figures.write_figures(section, folder / section, accelerator, tiny=True)
    return {section: read_json_lines(folder / section) for section in ("turns", "losses")}


def test_turns_have_their_speed_beside_plain_training_and_their_share_of_a_peak(measured):
    line, recommended = measured["turns"]
    for each in (line, recommended):
        assert [row["turn"] for row in each["rows"]] == ["student", "student", "augmentation", "all"], each
    for row in line["rows"]:
        assert row["share"] == pytest.approx(row["images_per_second"] * row["flops"] / line["peak"])
        assert row["share"] > 0
    text = "\n\n".join(gpu_parts.show_turns([line, line]))
    assert "*measured* peak" in text and "### wrn10_1_cifar\n" in text and text.count("plain training") == 1


def test_each_method_has_its_loss(measured):
    assert [line["run"] for line in measured["losses"]] == [
        *("plain training (crop + flip)", "TransInv, 1 teacher", "TransInv as recommended"),
    ]
    other = [{**line, "device": "cuda"} for line in measured["losses"][:1]]
    text = "\n".join(gpu_parts.show_losses([*measured["losses"], *other]))
    value = f"{measured['losses'][0]['means']['student/total']:.4f}"
    assert f"| plain training (crop + flip) | student | {value} | {value} |" in text
    assert "| TransInv, 1 teacher | augmentation |" in text


def test_every_method_is_among_the_figures(accelerator):
    titles = {kind.title for kind in [*METHODS.values(), *LEARNED.values()]} - {METHODS["supervised"].title}
    for section in ("waits", "turns", "losses"):
        names = [name for name, _ in gpu_figures.SECTIONS[section](accelerator, False)]
        assert all(any(title in name for name in names) for title in titles) and len(set(names)) == len(names)


def test_a_figure_that_fails_leaves_the_others_and_is_measured_again(tmp_path, accelerator, monkeypatch, capsys):
    broken = {"b"}

    def section(accelerator, tiny):
        for name in "abc":
            yield name, lambda name=name: {"value": 1 / (name not in broken), "tiny": tiny}

    monkeypatch.setitem(gpu_figures.SECTIONS, "turns", section)
    path = tmp_path / "it.jsonl"
    gpu_figures.write_figures("turns", path, accelerator, tiny=True)
    failed = {"figure": "b", "failed": "ZeroDivisionError: division by zero"}
    assert read_json_lines(path)[1] == failed and "Traceback" in capsys.readouterr().err
    broken.clear()
    gpu_figures.write_figures("turns", path, accelerator, tiny=True)
    assert [line["figure"] for line in read_json_lines(path)] == ["a", "b", "c", "b"]


def test_policies_and_corruptions_have_a_figure_each(accelerator):
    names = [name for name, _ in gpu_figures.policies(accelerator, True)]
    chosen = {"policy cutout", "policy strong", "corruption contrast", "primitive color"} & set(names)
    lines = [
        {"figure": name, **measure()} for name, measure in gpu_figures.policies(accelerator, True) if name in chosen
    ]
    text = "\n\n".join(gpu_parts.show_policies(lines))
    assert len(chosen) >= 3 and len(lines) == len(chosen)
    assert "| cutout |" in text and "| contrast |" in text


def test_lines_behind_one_that_was_cut_off_are_read(tmp_path):
    (tmp_path / "it.jsonl").write_text('{"figure": "a"}\n{"fig')
    JSONLines(tmp_path / "it.jsonl").append(figure="b")
    assert read_json_lines(tmp_path / "it.jsonl") == [{"figure": "a"}, {"figure": "b"}]


# Epochs


@pytest.fixture
def compared(tmp_path) -> GPUCheckConfig:
    """A comparison of two rows that trains for two steps."""
    content = {
        **{"dataset": "digits/target", "image_size": 32, "student": "wrn10_1_cifar", "batch_size": 16},
        **{"teachers": ["ema"], "max_steps": 2, "eval_corruptions": ["none"]},
        "rows": {"crop + flip": None, "TransInv": {"augment": ["transinv"]}},
    }
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(content))
    return GPUCheckConfig(str(tmp_path / "out"), run=str(tmp_path / "table.yaml"), scale=None, tiny=True)


def test_the_epochs_are_those_of_table_2_and_say_their_flags():
    config = GPUCheckConfig(num_train_epochs=30, dataset="cifar", teachers=("a", "ema"))
    comparison = read_comparison([*config.comparison(), "--rows", *ROWS])
    rows = {row.title: row for row in comparison.rows}
    for title in ROWS:
        assert rows[title].names.student == "wrn28_10_cifar" and rows[title].names.teachers == ("a", "ema")
        assert rows[title].train.num_train_epochs == 30 and rows[title].data.dataset == "cifar"
    assert len(read_comparison(GPUCheckConfig().comparison()).rows[0].names.teachers) == 3


def test_both_rows_are_trained_and_a_row_that_is_stopped_goes_on(compared, monkeypatch):
    """The first row is done by then; the second was stopped after it had written run.json."""
    commands = []

    def compare(check, found, name, *flags, share, variables):
        title, folder = flags[flags.index("--rows") + 1], Path(flags[flags.index("--output_dir") + 1])
        commands.append((title, share, "--resume_from" in flags))
        folder.mkdir(parents=True, exist_ok=True)
        ends = title == "crop + flip" or "--resume_from" in flags
        line = {"step": 1 + ends, "epoch": 0.5, "images_per_second": 9.0, "student/total": 2.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        rows = {title: {"results": {"clean": {"top1": 12.34}}}} if ends else {}
        (folder / "run.json").write_text(json.dumps({"status": "finished" if ends else "running", "rows": rows}))
        if not ends:
            found.fail("stopped at its limit of 9 s", "partly")
        return ends

    monkeypatch.setattr(LimitedParts, "transinv", compare)
    check = LimitedParts(Path(compared.output_dir), 1.0, compared)
    found = check.take("epochs", PARTS["epochs"])
    assert (found.state, commands) == ("partly", [("crop + flip", 0.5, False), ("TransInv", 1.0, False)])
    assert "| crop + flip | 2 | 0.50 | 9 | 2.000 | 12.3 |" in found.lines[0]
    assert "| TransInv | 1 | 0.50 | 9 | 2.000 | not finished |" in found.lines[0]
    commands.clear()
    found = check.take("epochs", PARTS["epochs"])
    assert (found.state, commands) == ("done", [("TransInv", 1.0, True)])
    assert [line["step"] for line in found.figures] == [2, 2]


@pytest.mark.slow
def test_both_rows_really_train(compared):
    check = LimitedParts(Path(compared.output_dir), 5.0, compared)
    found = check.take("epochs", PARTS["epochs"])
    assert found.state == "done", (found.reason, found.log)
    assert [line["figure"] for line in found.figures] == list(ROWS)


def test_a_summary_says_what_is_there(tmp_path):
    parts = [Found("turns", "partly", 7.0, "3 figures are there", lines=["| a |"], log=["so far"])]
    record = {"versions": {"torch": "2"}, "hardware": {"accelerator": "GPU"}, "commit": None, "tiny": False}
    text = markdown(record, parts)
    assert text.startswith("# Check of GPU") and "| turns | partly | 7 s |" in text
    assert "## turns\n\n| a |\n\nThe last lines of its log:\n\n```text\nso far\n```" in text
