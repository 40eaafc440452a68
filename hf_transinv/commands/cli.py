"""One command for everything: `transinv NAME [launcher flags] [flags of the command]`.

Without launcher flags a command runs in this process. With any of them it is started by accelerate's launcher, or,
for several processes on a CPU, by torchrun, since accelerate would start only one.

Only the standard library is imported until a command is known, so that `transinv --help` answers at once; the console
script loads this file without its package (hf_transinv_start.py).
"""

import difflib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hf_transinv_start

COMMANDS = {
    "train": "train",
    "multi-teacher": "multi_teacher",
    "single-teacher": "single_teacher",
    "train-teacher": "train_teacher",
    "train-vae": "train_vae",
    "compare": "compare",
    "evaluate": "evaluate",
    "invariance": "invariance_report",
    "probe": "probe",
    "hard-toy": "hard_toy",
    "benchmark": "benchmark_report",
    "gpu-check": "gpu_check",
    "push": "push_run",
    "card": "render_card",
    "env": "env",
}
"""Name -> module of `hf_transinv.commands`."""

UNLAUNCHED = ("gpu-check", "push", "card", "env")
"""Commands that take no launcher flags: they need no device, or choose it themselves."""

LAUNCHER_FLAGS = {
    "num_processes": "processes, over all machines",
    "mixed_precision": "no, bf16 or fp16",
    "gpu_ids": "GPUs of this machine, such as 0,1; all",
    "accelerate_config": "a YAML of accelerate config, or a shipped one: one_gpu, multi_gpu, multi_node, fsdp2, cpu",
    "config_file": "the same, as accelerate calls it",
    "num_cpu_threads_per_process": "threads of each process",
    "num_machines": "machines; the same command on each, with the three below",
    "machine_rank": "which of them this is, from 0",
    "main_process_ip": "address of the first",
    "main_process_port": "its port",
}
SWITCHES = {"cpu": "use the CPU even if there is a GPU", "multi_gpu": "one process per GPU (DDP)"}

_USAGE, _UNREACHED = 2, 4
_INTERFACE = "GLOO_SOCKET_IFNAME"


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        argv: the command line without the program; default: the process's.

    Raises:
        SystemExit: with the exit code of the command.
    """
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if name in ("-h", "--help", "help"):
        print(help_text())
    elif name == "--version":
        print(hf_transinv_start.own_version())
    elif name not in COMMANDS:
        near = difflib.get_close_matches(name.replace("_", "-"), COMMANDS, n=1)
        hint = f"did you mean {near[0]}? Else " if near else ""
        said = f"unknown command {name!r}; {hint}" if name else "no command given; "
        sys.exit(_failed(f"{said}see transinv --help"))
    else:
        try:
            launcher, flags = split_flags(rest)
        except ValueError as error:
            sys.exit(_failed(str(error)))
        if launcher and name in UNLAUNCHED:
            sys.exit(_failed(f"{name} runs in one process, on no device: leave out --{next(iter(launcher))}"))
        sys.exit(launch(name, launcher, flags) if launcher else run(name, flags))


def help_text() -> str:
    """What `transinv --help` says: the first line of each command, and the launcher flags."""
    folder = Path(__file__).parent
    lines = ["usage: transinv COMMAND [launcher flags] [flags of the command]", "", "commands:"]
    for name, module in COMMANDS.items():
        with (folder / f"{module}.py").open(encoding="utf-8") as file:
            lines.append(f"  {name:<16}{file.readline().strip().lstrip('r').strip(chr(34))}")
    lines += ["", "launcher flags (without any of them, one process, and a GPU if there is one):"]
    lines += [f"  --{name:<30}{text}" for name, text in (LAUNCHER_FLAGS | SWITCHES).items()]
    lines += ["", "transinv COMMAND --help has the flags to know, --help_all every one; transinv --version."]
    return "\n".join(lines)


def split_flags(argv: Sequence[str]) -> tuple[dict[str, str | bool], list[str]]:
    """The launcher's flags, wherever they are, and those of the command.

    Raises:
        ValueError: a launcher flag without its value.
    """
    launcher: dict[str, str | bool] = {}
    flags: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        name, joined, value = token.removeprefix("--").partition("=")
        if not token.startswith("--") or name not in LAUNCHER_FLAGS | SWITCHES:
            flags.append(token)
        elif name in SWITCHES:
            launcher[name] = True
        else:
            given = value if joined else next(tokens, "")
            if not given or given.startswith("--"):
                raise ValueError(f"--{name} needs a value: {LAUNCHER_FLAGS[name]}")
            launcher["config_file" if name == "accelerate_config" else name] = given
    return launcher, flags


def run(name: str, flags: Sequence[str]) -> int:
    """A command in this process."""
    sys.argv = [f"transinv {name}", *flags]
    hf_transinv_start.run(COMMANDS[name])
    return 0


def launch(name: str, launcher: Mapping[str, Any], flags: Sequence[str]) -> int:
    """A command in processes of its own; returns its exit code, the first that failed where there are several."""
    if str(launcher.get("machine_rank", "0")) == "0":
        hf_transinv_start.say_start(COMMANDS[name], flags)
    os.environ[hf_transinv_start.SAID] = "1"
    from subprocess import CalledProcessError

    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if str(launcher.get("num_processes", "1")) == "1":  # its warning of flags that were not given is for several
        logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
    settings = dict(launcher)
    if not os.path.isfile(settings.get("config_file", __file__)):
        from hf_transinv.resolve.shipped import launch_file

        settings["config_file"] = launch_file(settings["config_file"])
    try:
        if wants_torchrun(settings):
            from torch.distributed.run import parse_args, run

            arguments, variables = torchrun_arguments(name, settings, flags)
            os.environ.update(variables)
            _pass_signals_on()
            run(parse_args(arguments))
        else:
            from accelerate.commands.launch import launch_command, launch_command_parser

            _pass_signals_on()
            launch_command(launch_command_parser().parse_args(accelerate_arguments(name, settings, flags)))
    except CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except DistError as error:
        why, *_ = str(error).split("\n")
        return _failed(
            "the machines of this run could not meet at main_process_ip, main_process_port: each must reach the first "
            f"one there, and the command must run on each ({why})",
            _UNREACHED,
        )
    return 0


def accelerate_arguments(name: str, launcher: Mapping[str, Any], flags: Sequence[str]) -> list[str]:
    """The arguments of `accelerate launch`."""
    own = [f"--{key}" if value is True else f"--{key}={value}" for key, value in launcher.items()]
    return [*own, "--module", "hf_transinv.commands.cli", name, *flags]


def torchrun_arguments(
    name: str, launcher: Mapping[str, Any], flags: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """For several processes on a CPU: the arguments of `torchrun`, and the variables that tell accelerate the rest."""
    settings = _file_settings(launcher) | dict(launcher)
    machines = int(settings.get("num_machines", 1))
    processes, uneven = divmod(int(settings["num_processes"]), machines)
    if uneven:
        sys.exit(_failed(f"--num_processes {settings['num_processes']} cannot be shared among {machines} machines"))
    arguments = [f"--nproc_per_node={processes}"]
    if machines == 1:
        arguments.append("--standalone")
    else:
        arguments += [f"--nnodes={machines}", f"--node_rank={settings.get('machine_rank', 0)}"]
        first = str(settings.get("main_process_ip") or "127.0.0.1")
        port = str(settings.get("main_process_port") or 29500)
        arguments += [f"--master_addr={first}", f"--master_port={port}"]
    variables = {"ACCELERATE_USE_CPU": "true"}
    interface = None if machines == 1 or _INTERFACE in os.environ else interface_towards(first, port)
    if interface:
        variables[_INTERFACE] = interface
    if "mixed_precision" in settings:
        variables["ACCELERATE_MIXED_PRECISION"] = str(settings["mixed_precision"])
    if "num_cpu_threads_per_process" in settings:
        variables["OMP_NUM_THREADS"] = str(settings["num_cpu_threads_per_process"])
    return [*arguments, "--module", "hf_transinv.commands.cli", name, *flags], variables


def interface_towards(address: str, port: str) -> str | None:
    """The network interface by which this machine reaches an address, its own included.

    Gloo takes the one that the machine's own name stands for, which many systems resolve to 127.0.0.1.

    Returns:
        Its name, such as eth0; None where the address has no route.
    """
    import psutil  # of accelerate

    try:
        family, kind, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    return next((name for name, held in psutil.net_if_addrs().items() if own in {one.address for one in held}), None)


def wants_torchrun(launcher: Mapping[str, Any]) -> bool:
    """Whether several processes are asked for, and only a CPU is there for them."""
    settings = _file_settings(launcher) | dict(launcher)
    if not str(settings.get("num_processes", 1)).isdigit() or int(settings.get("num_processes", 1)) < 2:
        return False
    if settings.get("cpu") or settings.get("use_cpu") or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        return True
    if "num_processes" not in launcher or "multi_gpu" in launcher:
        return False
    import torch

    return not torch.accelerator.is_available()


def _file_settings(launcher: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the launcher's YAML; accelerate itself reports one that cannot be read."""
    if "config_file" not in launcher:
        return {}
    import yaml

    try:
        content = yaml.safe_load(Path(launcher["config_file"]).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _pass_signals_on() -> None:
    """Pass signals on to the command and wait: it writes its checkpoint and ends by itself."""

    def to_children(number: int, _: Any) -> None:
        import psutil  # of accelerate

        for child in psutil.Process().children():
            child.send_signal(number)

    signal.signal(signal.SIGTERM, to_children)
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to the children, too


def _failed(message: str, code: int = _USAGE) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


if __name__ == "__main__":
    main()
