"""The command `transinv`: what it starts and how, what it says, and that it says it at once."""

import ast
import logging
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import parse_args

import hf_transinv_start
from hf_transinv import record
from hf_transinv.commands import cli
from hf_transinv.commands.env import facts, shown
from hf_transinv.hub.card import render_card
from tests.hub.test_card import record as finished_record
from tests.launching import PYTHON, REPOSITORY, environment

RECIPES = sorted((REPOSITORY / "recipes").glob("*.py"))
TINY = ["--dataset", "digits/target", "--image_size", "32", "--student", "wrn10_1_cifar", "--teachers", "ema"]
TINY += ["--batch_size", "16", "--max_steps", "2", "--inner_steps", "1", "--eval_corruptions", "none"]


def transinv(*flags: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The console script, in a process of its own."""
    command = [*PYTHON, "-c", "import hf_transinv_start as start; start.main()", *flags]
    env = environment(cwd, **variables)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def ended(argv: list[str], capsys) -> tuple[int, str]:
    """Exit code and stderr of a command line that ends in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    return end.value.code, capsys.readouterr().err


# Help


def test_help_imports_nothing_heavy(tmp_path):
    code = "import sys, hf_transinv_start as start; start.main(); "
    code += "print(sorted({'torch', 'timm', 'yaml'} & set(sys.modules)))"
    done = subprocess.run(
        [*PYTHON, "-c", code, "--help"], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("way", ["recipe", "console script", "launcher"])
def test_the_first_line_comes_before_anything_heavy_is_imported(tmp_path, way):
    """A torch that cannot be imported: what was said before is what a run says before its imports."""
    (tmp_path / "torch.py").write_text("raise ImportError('too heavy')")
    start = ["-c", "import hf_transinv_start as start; start.main()", "multi-teacher"]
    command = {
        "recipe": [*PYTHON, str(REPOSITORY / "recipes" / "multi_teacher.py")],
        "console script": [*PYTHON, *start],
        "launcher": [*PYTHON, *start, "--num_processes", "2", "--cpu"],
    }[way]
    flags = ["--config", "digits", "--output_dir=out"]
    env = environment(tmp_path)
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    done = subprocess.run([*command, *flags], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "too heavy" in done.stderr
    assert done.stdout.splitlines() == [
        f"hf_transinv {hf_transinv_start.own_version()}: multi_teacher",
        "config      digits",
        "output_dir  out",
        "loading     PyTorch, timm and accelerate",
    ]


@pytest.mark.parametrize(
    ("module", "flags", "variables"),
    [
        ("train", ["--help"], {}),
        ("train", ["--max_steps", "1", "--print_config"], {}),
        ("env", [], {}),
        ("train", [], {"RANK": "1"}),
        ("train", [], {hf_transinv_start.SAID: "1"}),
    ],
)
def test_nothing_is_said_where_the_output_is_what_was_asked_for_or_another_process_says_it(
    module, flags, variables, monkeypatch, capsys
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hf_transinv_start.say_start(module, flags)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("processes", "level"), [(None, logging.ERROR), ("1", logging.ERROR), ("2", logging.NOTSET)])
def test_the_launchers_own_warning_is_for_several_processes(processes, level, monkeypatch, capsys):
    logger = logging.getLogger("accelerate.commands.launch")
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    monkeypatch.setenv(hf_transinv_start.SAID, "")
    monkeypatch.setattr(cli, "wants_torchrun", lambda _: False)
    monkeypatch.setattr(cli, "_pass_signals_on", lambda: None)
    monkeypatch.setattr("accelerate.commands.launch.launch_command", lambda _: None)
    launcher = {"mixed_precision": "bf16"} | ({"num_processes": processes} if processes else {})
    assert cli.launch("train", launcher, ["--max_steps", "1"]) == 0
    assert logger.level == level
    assert capsys.readouterr().out.startswith("hf_transinv ") and os.environ[hf_transinv_start.SAID] == "1"


def test_bars_of_libraries_are_for_terminals(monkeypatch, capsys):
    names = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    hf_transinv_start.say_start("train", [])
    assert not any(name in os.environ for name in names)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    hf_transinv_start.say_start("train", [])
    assert all(os.environ[name] == "1" for name in names)


def test_help_has_every_command_with_its_first_line():
    text = cli.help_text()
    for name, module in cli.COMMANDS.items():
        first = ast.get_docstring(ast.parse((REPOSITORY / f"hf_transinv/commands/{module}.py").read_text()))
        assert f"  {name:<16}{first.splitlines()[0]}" in text
    assert all(f"--{name} " in text for name in cli.LAUNCHER_FLAGS | cli.SWITCHES)


def test_the_console_script_is_the_light_one():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"transinv": "hf_transinv_start:main"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_and_leaves_the_launcher_its_flags(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and f"transinv {name}" in said
    assert not [flag for flag in cli.LAUNCHER_FLAGS | cli.SWITCHES if f"  --{flag} " in said]


# Dispatch


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_the_same_code(path):
    tree = ast.parse(path.read_text())
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert ast.unparse(call.func) == "run" and ast.unparse(call.args[1]) == "__doc__"
    module = ast.literal_eval(call.args[0])
    assert module in cli.COMMANDS.values() and callable(import_module(f"hf_transinv.commands.{module}").main)
    assert ast.get_docstring(tree) and len(path.read_text().splitlines()) < 40


def test_every_command_but_env_has_a_recipe():
    names = {path.stem.replace("render_card", "card").replace("_", "-") for path in RECIPES}
    assert names == set(cli.COMMANDS) - {"env"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["multi_teacher"], "did you mean multi-teacher?"),
        (["frobnicate"], "unknown command 'frobnicate'; see transinv --help"),
        ([], "no command given; see transinv --help"),
        (["train", "--num_processes"], "--num_processes needs a value"),
        (["train", "--gpu_ids", "--seed", "1"], "--gpu_ids needs a value"),
        (["push", "out", "me/it", "--num_processes", "2"], "push runs in one process"),
        (["card", "nowhere"], "error: nowhere holds no run"),
        (["train", "--learning_rat", "1"], "did you mean learning_rate?"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_code_2(argv, said, capsys):
    code, error = ended(argv, capsys)
    assert code == 2 and said in error and len(error.strip().splitlines()) == 1


def test_the_record_says_the_command_and_the_card_how_it_was_launched(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["transinv train", "--teachers", "a b", "ema"])
    command = record.command_line()
    assert command == "transinv train --teachers 'a b' ema"
    run = finished_record()
    run |= {"command": command, "hardware": {**run["hardware"], "processes": 4, "mixed_precision": "bf16"}}
    card = render_card(run)
    assert "\ntransinv train --num_processes 4 --mixed_precision bf16 --teachers 'a b' ema\n" in card
    run["hardware"] |= {"processes": 1, "mixed_precision": "no"}
    assert "\ntransinv train --teachers 'a b' ema\n" in render_card(run)


# Launchers


@pytest.mark.parametrize(
    ("argv", "launcher", "flags"),
    [
        (["--seed", "1"], {}, ["--seed", "1"]),
        (["--config", "x.yaml", "--num_processes", "4"], {"num_processes": "4"}, ["--config", "x.yaml"]),
        (["--num_processes=4", "--cpu", "--seed=1"], {"num_processes": "4", "cpu": True}, ["--seed=1"]),
        (["--accelerate_config", "fsdp2"], {"config_file": "fsdp2"}, []),
        (
            ["--teachers", "a", "--mixed_precision", "bf16", "ema"],
            {"mixed_precision": "bf16"},
            ["--teachers", "a", "ema"],
        ),
    ],
)
def test_launcher_flags_are_found_wherever_they_stand(argv, launcher, flags):
    assert cli.split_flags(argv) == (launcher, flags)


def test_accelerate_is_started_with_its_own_flags():
    launcher = {"num_processes": "4", "mixed_precision": "bf16", "multi_gpu": True}
    arguments = cli.accelerate_arguments("train", launcher, ["--seed", "1"])
    assert arguments == [
        *("--num_processes=4", "--mixed_precision=bf16", "--multi_gpu"),
        *("--module", "hf_transinv.commands.cli", "train", "--seed", "1"),
    ]
    parsed = launch_command_parser().parse_args(arguments)
    assert (parsed.num_processes, parsed.mixed_precision, parsed.multi_gpu, parsed.module) == (4, "bf16", True, True)
    assert (parsed.training_script, parsed.training_script_args) == (
        "hf_transinv.commands.cli",
        ["train", "--seed", "1"],
    )


def test_torchrun_is_started_for_several_processes_on_a_cpu():
    launcher = {"num_processes": "4", "mixed_precision": "bf16", "num_cpu_threads_per_process": "3"}
    arguments, variables = cli.torchrun_arguments("train", launcher, ["--seed", "1"])
    assert arguments == [
        *("--nproc_per_node=4", "--standalone", "--module", "hf_transinv.commands.cli", "train", "--seed", "1")
    ]
    assert variables == {
        "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "OMP_NUM_THREADS": "3",
    }
    launcher |= {"num_machines": "2", "machine_rank": "1", "main_process_ip": "10.0.0.1", "main_process_port": "7"}
    arguments, _ = cli.torchrun_arguments("train", launcher, [])
    parsed = parse_args(arguments)
    assert (parsed.nproc_per_node, parsed.nnodes, parsed.node_rank) == ("2", "2", 1)
    assert (parsed.master_addr, parsed.master_port, parsed.module) == ("10.0.0.1", 7, True)


@pytest.mark.parametrize(
    ("launcher", "has_gpu", "torchrun"),
    [
        ({"num_processes": "2"}, False, True),
        ({"num_processes": "2"}, True, False),
        ({"num_processes": "2", "cpu": True}, True, True),
        ({"num_processes": "1"}, False, False),
        ({"mixed_precision": "bf16"}, False, False),
        ({"num_processes": "many"}, False, False),  # which accelerate refuses
        ({"config_file": "cpu.yaml"}, False, False),
        ({"config_file": "cpu.yaml", "num_processes": "2"}, True, True),
        ({"config_file": "multi_gpu.yaml"}, False, False),  # no GPUs: the run says so
        ({"config_file": "nowhere.yaml"}, False, False),
    ],
)
def test_who_launches(launcher, has_gpu, torchrun, monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_gpu)
    if "config_file" in launcher:
        launcher = launcher | {"config_file": str(REPOSITORY / "recipes/accelerate" / launcher["config_file"])}
    assert cli.wants_torchrun(launcher) == torchrun


def test_two_processes_train_and_a_refusal_keeps_its_exit_code(tmp_path):
    done = transinv("multi-teacher", "--num_processes", "2", *TINY, "--output_dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    run = record.RunRecord.read(tmp_path / "out")
    assert run["hardware"]["processes"] == 2 and run["status"] == "finished"
    assert run["command"].startswith("transinv multi-teacher --dataset digits/target")
    done = transinv("multi-teacher", "--cpu", *TINY, "--output_dir", "out", cwd=tmp_path)
    assert done.returncode == 2 and "out is not empty" in done.stderr and "Traceback" not in done.stderr


# env


def test_env_says_what_a_bug_report_needs_and_no_secret(tmp_path):
    variables = {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": "http://me:hidden@hub.example", "ACCELERATE_USE_CPU": "true"}
    done = transinv("env", cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    for said in (
        f"- torch: {torch.__version__.partition('+')[0]}",
        "- GPUs: ",
        "- HF_TOKEN: set (not shown)",
        "commit ",
    ):
        assert said in done.stdout
    assert "- ACCELERATE_USE_CPU: true" in done.stdout and "- token for the Hub: found" in done.stdout
    assert "hf_secret" not in done.stdout and "hidden" not in done.stdout


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_API_KEY", "HUGGING_FACE_HUB_TOKEN", "TORCH_PASSWORD"])
def test_secrets_are_not_shown(name):
    assert shown(name, "s3cret") == "set (not shown)" and shown(name, "") == "empty"


def test_env_leaves_other_variables_out():
    found = facts({"HOME": "/home/me", "HF_HOME": "cache", "AWS_SECRET": "x"})
    assert found["HF_HOME"] == "cache" and not {"HOME", "AWS_SECRET"} & set(found)
    assert os.environ["PATH"] not in found.values()
