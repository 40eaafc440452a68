"""How commands and recipes start: with a line that says so, before what takes seconds to import.

Only the standard library is imported here. Importing hf_transinv imports torch and timm, for it registers
architectures: `transinv --help`, and the first line of a run, need not wait for that.
"""

import importlib
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

QUIET = ("env", "push_run", "render_card", "benchmark_report")
"""Modules of commands whose output is what they were asked for."""
SAID = "HF_TRANSINV_STARTED"
"""Set by a command that starts processes, which then do not say again that they start."""

_ASKED = ("-h", "--help", "--print_config")


def main() -> None:
    """The console script `transinv`, see `hf_transinv.commands.cli.main`."""
    runpy.run_path(str(Path(__file__).parent / "hf_transinv" / "commands" / "cli.py"), run_name="__main__")


def run(module: str, description: str | None = None) -> None:
    """A command in this process, as its recipe and `transinv` run it.

    Args:
        module: of `hf_transinv.commands`.
        description: for --help; default: the command's own.
    """
    say_start(module, sys.argv[1:])
    from hf_transinv.experiment.launch import clear_errors

    with clear_errors():
        command = importlib.import_module(f"hf_transinv.commands.{module}").main
        command(description) if description else command()


def say_start(module: str, flags: Sequence[str]) -> None:
    """Say what starts, on the first process alone, and leave the bars of libraries to terminals.

    Args:
        module: of `hf_transinv.commands`.
        flags: its command line.
    """
    if not sys.stderr.isatty():
        for variable in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(variable, "1")
    is_said = os.environ.pop(SAID, "") or os.environ.get("RANK", "0") != "0"
    if is_said or module in QUIET or any(flag.split("=")[0].startswith(_ASKED) for flag in flags):
        return
    print(f"hf_transinv {own_version()}: {module}")
    for name in ("config", "output_dir", "resume_from"):
        given = [flags[at + 1 :][:1] for at, flag in enumerate(flags) if flag == f"--{name}"]
        given += [[flag.partition("=")[2]] for flag in flags if flag.startswith(f"--{name}=")]
        for value in given[-1:]:
            print(f"{name:<12}{' '.join(value)}")
    print(f"{'loading':<12}PyTorch, timm and accelerate", flush=True)


def own_version() -> str:
    """Of the installed package."""
    try:
        return version("hf-transinv")
    except PackageNotFoundError:
        return "unknown: hf-transinv is not installed"
