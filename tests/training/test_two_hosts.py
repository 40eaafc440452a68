"""Two machines: network namespaces with addresses of their own, joined by a cable that is cut in mid-training."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hf_transinv.commands import cli
from hf_transinv.record import RunRecord, read_metrics
from hf_transinv.training.checkpointing import checkpoints, last_good
from hf_transinv.training.signals import ProcessLost, noticing_lost_processes
from tests.launching import PYTHON, environment, saved_steps, succeed, tiny_teachers

ADDRESSES = ("10.77.0.1", "10.77.0.2")
LINKS = ("host0", "host1")
WAIT = 30  # seconds before a process takes the others for lost
LOST = "error: another process of this run has ended or cannot be reached"


class Hosts:
    """Two network namespaces in a user namespace of their own, so that no rights are needed; they go with it.

    Raises:
        OSError: there is no unshare, nsenter or ip.
        subprocess.CalledProcessError: the system does not allow it.
    """

    def __init__(self) -> None:
        self._keepers: list[subprocess.Popen] = []
        self._entry: list[list[str]] = []

    def __enter__(self) -> "Hosts":
        try:
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for keeper in self._keepers:
            keeper.kill()
            keeper.wait()

    def _join(self) -> None:
        first = self._keep(["unshare", "--user", "--map-root-user", "--net"])
        inside = ["nsenter", f"--target={first}", "--user", "--preserve-credentials"]
        second = self._keep([*inside, "unshare", "--net"])
        self._entry = [[*inside, f"--net=/proc/{pid}/ns/net"] for pid in (first, second)]
        cable = ["ip", "link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1]]
        self.run(0, *cable, "netns", str(second))
        for host, (address, link) in enumerate(zip(ADDRESSES, LINKS, strict=True)):
            self.run(host, "ip", "address", "add", f"{address}/24", "dev", link)
            for name in ("lo", link):
                self.run(host, "ip", "link", "set", name, "up")

    def _keep(self, entry: list[str]) -> int:
        """A process that keeps a namespace; returns its id once it is inside."""
        keeper = subprocess.Popen([*entry, "sh", "-c", "echo inside; exec sleep 3600"], stdout=subprocess.PIPE)
        self._keepers.append(keeper)
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"inside\n":
            raise subprocess.CalledProcessError(keeper.wait(), entry)
        return keeper.pid

    def run(self, host: int, *command: str) -> None:
        """A command on a host, to its end."""
        subprocess.run([*self._entry[host], *command], check=True, capture_output=True, timeout=30)

    def start(self, host: int, *flags: object, cwd: Path, home: Path) -> subprocess.Popen:
        """`transinv multi-teacher` as it is launched on a host; what it says is in `home`/saidHOST."""
        launcher = ["--cpu", "--accelerate_config", "multi_node", "--num_processes", 2, "--num_machines", 2]
        launcher += ["--machine_rank", host, "--main_process_ip", ADDRESSES[0]]
        command = [*PYTHON, "-c", "import hf_transinv_start as start; start.main()", "multi-teacher", *launcher]
        env = environment(home)
        env.pop("GLOO_SOCKET_IFNAME", None)
        with open(home / f"said{host}", "w") as said:
            options = {"cwd": cwd, "env": env, "stdout": said, "stderr": said}
            return subprocess.Popen([*self._entry[host], *map(str, [*command, *flags])], **options)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    try:
        entered = Hosts().__enter__()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"two network namespaces with a cable are not allowed here: {error}")
    with entered:
        yield entered


def ended(processes: list[subprocess.Popen], seconds: float) -> list[int]:
    """The exit codes of processes that have to end by themselves."""
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(timeout=max(0.1, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()


def said(folder: Path, host: int) -> str:
    return (folder / f"said{host}").read_text()


def errors(folder: Path, host: int) -> list[str]:
    """The lines that the run itself ended with."""
    return re.findall(r"^error: .*$", said(folder, host), re.MULTILINE)


def flags(folder: Path) -> list[object]:
    teachers = tiny_teachers(folder)
    given = ["--dataset", "digits/target", "--image_size", 32, "--student", "wrn10_1_cifar", "--teachers", *teachers]
    given += ["ema", "--batch_size", 16, "--inner_steps", 2, "--max_steps", 48, "--save_steps", 4]
    given += ["--logging_steps", 2, "--save_total_limit", 20, "--eval_corruptions", "none", "--ddp_timeout", WAIT]
    return given


@pytest.mark.slow
def test_a_cut_cable_ends_both_hosts_and_the_resumed_run_has_the_bits_of_an_undisturbed_one(tmp_path, hosts):
    given = flags(tmp_path)

    def started(out: str, *more: object, cwd: tuple[Path, Path] = (tmp_path, tmp_path)) -> list[subprocess.Popen]:
        own = [*given, "--output_dir", out, *more]
        return [hosts.start(host, *own, cwd=cwd[host], home=tmp_path) for host in (0, 1)]

    assert ended(started("whole"), 300) == [0, 0], said(tmp_path, 0) + said(tmp_path, 1)
    hardware = RunRecord.read(tmp_path / "whole")["hardware"]
    assert (hardware["processes"], hardware["mixed_precision"]) == (2, "bf16")  # as multi_node.yaml says

    processes = started("cut")
    while not saved_steps(tmp_path / "cut") and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    hosts.run(1, "ip", "link", "set", LINKS[1], "down")
    assert ended(processes, WAIT + 60) == [4, 4]
    for host in (0, 1):
        (error,) = errors(tmp_path, host)
        assert error.startswith(LOST) and "--resume_from latest" in error and f"{WAIT}000ms" in error
        assert "Traceback" not in said(tmp_path, host)
    saved = checkpoints(tmp_path / "cut" / "checkpoints")
    assert saved and saved[-1].name < "step_00000048"
    assert all(last_good(path.parent, before=path.with_name(f"{path.name}+")) == path for path in saved)
    assert RunRecord.read(tmp_path / "cut")["status"] == "running"

    hosts.run(1, "ip", "link", "set", LINKS[1], "up")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    processes = started("cut", "--resume_from", "latest", cwd=(tmp_path, elsewhere))
    assert ended(processes, 120) == [4, 2]
    (error,) = errors(tmp_path, 1)
    assert "is not on this machine" in error and saved[-1].name in error

    assert ended(started("cut", "--resume_from", "latest"), 300) == [0, 0], said(tmp_path, 0) + said(tmp_path, 1)
    files = sorted((tmp_path / "whole").rglob("*.safetensors"))
    last = {path.name for path in files if path.parent.name == "step_00000048"}
    assert last == {"student.safetensors", "augmentation.safetensors", "ema.safetensors"}
    for file in files:
        one, two = load_file(file), load_file(tmp_path / "cut" / file.relative_to(tmp_path / "whole"))
        assert one.keys() == two.keys() and all(tensor.equal(two[name]) for name, tensor in one.items()), file
    lines = [
        [{key: value for key, value in line.items() if key != "images_per_second"} for line in read_metrics(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "cut" / "metrics.jsonl")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 24


# What a launch on several machines says, and how long it waits; on this machine alone


TIMEOUT = """
import torch
from hf_transinv.config import OutputConfig, TrainConfig
from hf_transinv.experiment.launch import start_accelerator

start_accelerator(OutputConfig(), SECONDS)
group = torch.distributed.group.WORLD
print("waits", round(group._get_backend(torch.device("cpu")).options._timeout.total_seconds(), 2))
"""


@pytest.mark.parametrize("seconds", [45, 600])
def test_gloo_waits_as_long_as_the_run_says(tmp_path, seconds):
    """Also for 600 s, which accelerate takes for its own default and does not pass on."""
    (tmp_path / "main.py").write_text(TIMEOUT.replace("SECONDS", str(seconds)))
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = succeed(PYTHON, tmp_path / "main.py", cwd=tmp_path, ACCELERATE_USE_CPU="true", **alone)
    assert f"waits {seconds}.0" in done.stdout


def on_two_machines(rank: int = 1, **settings: str) -> dict[str, object]:
    place = {"machine_rank": str(rank), "main_process_ip": "127.0.0.1", "main_process_port": "29411"}
    return {"cpu": True, "num_processes": "2", "num_machines": "2", **place, **settings}


def test_gloo_takes_the_interface_that_reaches_the_first_machine(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    _, variables = cli.torchrun_arguments("train", on_two_machines(), [])
    assert variables["GLOO_SOCKET_IFNAME"].startswith("lo")
    _, variables = cli.torchrun_arguments("train", on_two_machines(main_process_ip="nowhere.invalid"), [])
    assert "GLOO_SOCKET_IFNAME" not in variables
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    _, variables = cli.torchrun_arguments("train", on_two_machines(), [])
    assert "GLOO_SOCKET_IFNAME" not in variables


def test_processes_that_cannot_connect_are_told_of_the_network_interface():
    said = "Gloo connectFullMesh failed with [/third_party/gloo/gloo/transport/tcp/pair.cc:152] timed out connecting"
    with pytest.raises(ProcessLost, match=r"GLOO_SOCKET_IFNAME.*connectFullMesh"), noticing_lost_processes():
        raise RuntimeError(said)


@pytest.mark.parametrize("rank", [0, 1])
def test_machines_that_do_not_meet_end_in_one_line(rank, monkeypatch, capsys):
    whole = cli.torchrun_arguments

    def hasty(*given):
        arguments, variables = whole(*given)
        return ["--rdzv_conf=timeout=1", *arguments], variables

    monkeypatch.setattr(cli, "torchrun_arguments", hasty)
    monkeypatch.setattr(cli, "_pass_signals_on", lambda: None)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # what the launch sets is taken back after the test
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    assert cli.launch("train", on_two_machines(rank), []) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the machines of this run could not meet at")
