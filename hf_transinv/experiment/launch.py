"""What surrounds a run: the launcher it came from, its folder, what is refused before it starts, how it ends."""

import contextlib
import ctypes
import errno
import logging
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list
from torch.distributed.fsdp import FSDPModule

from hf_transinv.config import OutputConfig, TrainConfig
from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.training.checkpointing import checkpoints
from hf_transinv.training.nan_guard import TrainingDiverged
from hf_transinv.training.signals import ProcessLost, noticing_lost_processes

# What may differ when a run is resumed: where it reports to and how long it waits, not what it computes. A preset is
# judged by the values that it fills in.
_FREE_ON_RESUME = {
    "preset",
    *("resume_from", "extend_to_steps", "output_dir", "report_to", "eval_batch_size", "ddp_timeout"),
    *("push_to_hub", "private", "hub_revision", "push_every", "license"),
}
# What earlier versions did, whose records lack the field.
_DONE_BEFORE = {"eval_crop_pct": 1.0, "interpolation": "bilinear", "budget": "images"}
# accelerate's environment variable -> what was asked for, and why a run cannot do it.
_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": (
        "DeepSpeed",
        "its engine takes one model an Accelerator, and a run trains several (a student and an augmentation, or two "
        "students), each with an optimizer of its own",
    ),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "it trains its own language models, no image classifiers"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (
        "a parallelism_config (tensor, context or sequence parallelism)",
        "the run gives each process images of its own, and those processes share theirs",
    ),
}
# mallopt's names for its parameters, and the largest value it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MOST = -1, -3, 2**31 - 1
_DEBUG = "HF_TRANSINV_DEBUG"
_now: dict[str, Any] = {"what": "starting", "folder": None, "output_dir": None}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Stopped(Exception):
    """A signal ended the run; the message says how to go on."""


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """End the process with one line instead of a traceback when the input is at fault, or another process is gone.

    With the variable HF_TRANSINV_DEBUG set, the traceback comes as well. An unexpected error keeps its traceback;
    before it come what the run was doing, where it can go on from, and what a report of it needs.
    """
    try:
        with noticing_lost_processes():
            yield
    except (InputError, TrainingDiverged) as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        _end(f"error: {' '.join(str(error).split())}", 2 if isinstance(error, InputError) else 3)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        _end(f"error: {error}. Is the disk full? Checkpoints that were written before are whole", 2)
    except ProcessLost as error:
        _end(f"error: {' '.join(str(error).split())}", 4)
    except Stopped as stop:
        _end(str(stop), 130)
    except Exception:
        sys.stdout.flush()
        sys.stderr.write(f"\n{_unexpected()}\n")
        raise


def doing(what: str, folder: Path | None = None, output_dir: Path | None = None) -> None:
    """Note what the run is about to do, for an error to say.

    Args:
        what: it is about to do.
        folder: of the row, whose checkpoints it can go on from.
        output_dir: of the whole run.
    """
    _now.update(what=what, folder=folder or _now["folder"], output_dir=output_dir or _now["output_dir"])


def _unexpected() -> str:
    """What is said before the traceback of an unexpected error."""
    folder = _now["folder"]
    saved = checkpoints(folder / "checkpoints") if folder is not None else []
    go_on = (
        f" Its last checkpoint is {saved[-1]}: --output_dir {_now['output_dir']} --resume_from latest goes on."
        if saved
        else ""
    )
    return (
        f"an unexpected error while {_now['what']}.{go_on} Please report it, with the lines below and the "
        "versions in run.json."
    )


def _end(message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"\n{message}\n")
    sys.stderr.flush()
    if torch.distributed.is_initialized():
        os._exit(code)  # a process group that others may have left cannot be taken down: Gloo aborts, NCCL waits
    sys.exit(code)


def start_accelerator(output: OutputConfig, timeout: float = TrainConfig.ddp_timeout) -> Accelerator:
    """An Accelerator that has the processes it was asked for.

    Args:
        output: where the run reports to.
        timeout: seconds that a process waits for the others before it takes them for lost.

    Raises:
        InputError: the launcher was asked for several processes and started one, or for what does not work with two
            players; or a tracker is not installed.
    """
    report_to = None if output.report_to == "none" else output.report_to
    _refuse_launch()
    # A microsecond more: accelerate leaves out what is its own default (600 s), and Gloo would wait for its own 1800.
    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout, microseconds=1))
    folder = output.output_dir or "outputs"
    accelerator = Accelerator(log_with=report_to, project_dir=folder, kwargs_handlers=[waiting])
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO if accelerator.is_main_process else 30)
    for noisy in ("httpx", "httpx2", "datasets", "timm", "huggingface_hub", "torch.distributed"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    asked = int(os.environ.get("WORLD_SIZE", accelerator.num_processes))
    # `accelerate launch --cpu --num_processes 2` sets an address for processes to meet at, and starts one.
    forgotten = "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ and "RANK" not in os.environ
    if asked != accelerator.num_processes or forgotten:
        raise InputError(
            "several processes were asked for and one is running: accelerate launch starts only one on a CPU. "
            "Launch with: transinv COMMAND --num_processes 2 ... "
            "(or ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 RECIPE ...)"
        )
    _refuse_shards(accelerator, output)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    if report_to and not accelerator.log_with:
        raise InputError(f"report_to {report_to}: that package is not installed; pip install {report_to}")
    return accelerator


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next turn, instead of giving it back to the system.

    It gives back all large blocks otherwise, and each turn waits for them to be mapped and cleared page by page again.
    Without glibc, or where its variables already say what is wished, nothing happens.
    """
    wished = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
    if platform.libc_ver()[0] == "glibc" and not wished & set(os.environ):
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, _MOST)


def _refuse_launch() -> None:
    """What accelerate launch can be asked for and a run of several players cannot do, by the launcher's variables."""
    for variable, (asked, reason) in _REFUSED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise InputError(
                f"{asked} was asked for: {reason}. Use MULTI_GPU (DDP), or FSDP version 2 where the student does not "
                "fit; recipes/accelerate/ has both"
            )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        raise InputError(
            f"accelerate launch was given gradient_accumulation_steps {steps}: give it to the recipe instead "
            "(--gradient_accumulation_steps), which splits batch_size into so many micro-batches"
        )


def _refuse_shards(accelerator: Accelerator, output: OutputConfig) -> None:
    if accelerator.distributed_type == DistributedType.XLA:
        raise InputError("a TPU was asked for: runs share buffers by torch.distributed, which XLA does not serve")
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and not accelerator.is_fsdp2:
        if accelerator.distributed_type == DistributedType.FSDP:
            raise InputError("FSDP version 1 was asked for: only version 2 is supported (fsdp_version: 2)")
        raise InputError(
            "FSDP was asked for, and accelerate shards among several GPUs only: on a CPU, and in one process, it "
            "would silently train whole copies. Launch without FSDP"
        )
    if accelerator.is_fsdp2 and not hasattr(FSDPModule, "set_reshard_after_forward"):
        raise InputError(
            f"FSDP was asked for, and torch {torch.__version__} cannot shard two players that answer each other. "
            "Upgrade torch, or launch without FSDP"
        )
    if accelerator.is_fsdp2 and accelerator.state.fsdp_plugin.cpu_ram_efficient_loading:
        raise InputError(
            "fsdp_cpu_ram_efficient_loading: accelerate then cannot place the buffers of BatchNorm; set it to false"
        )
    if accelerator.is_fsdp2 and output.push_every:
        raise InputError(
            "push_every: one process alone pushes while training goes on, and a sharded student lies on all of them; "
            "leave it out: push_to_hub publishes the finished one"
        )


def agree(accelerator: Accelerator, decide: Callable[[], Any]) -> Any:
    """Decide on the main process, for all; an InputError there is raised everywhere."""
    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            answer = [decide()]
        except InputError as error:
            answer = [error]
    answer = broadcast_object_list(answer)[0]
    if isinstance(answer, InputError):
        raise answer
    return answer


def output_folder(output: OutputConfig, recipe: str) -> Path:
    """The folder of this run.

    Raises:
        InputError: it holds another run and this one does not resume it, or there is nothing to resume.
    """
    if output.resume_from not in (None, "latest") and output.output_dir is None:
        folder = Path(output.resume_from).resolve().parent.parent
    elif output.output_dir is not None:
        folder = Path(output.output_dir)
    elif output.resume_from:
        raise InputError("resume_from latest: give the run's folder as output_dir")
    else:
        folder = Path("outputs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    if output.resume_from:
        if output.resume_from != "latest" and not os.path.isdir(output.resume_from):
            near = did_you_mean(output.resume_from, ("latest",))
            raise InputError(
                f"resume_from {output.resume_from!r} is no folder: expected latest, or a checkpoint folder of the "
                f"run{near}"
            )
        if output.resume_from != "latest" and Path(output.resume_from).resolve().parent.parent != folder.resolve():
            raise InputError(
                f"checkpoint {output.resume_from} is not one of the run in {folder}; leave out --output_dir"
            )
        if not os.path.exists(folder / "run.json"):
            raise InputError(f"{folder} holds no run to resume (no run.json)")
    elif os.path.exists(folder) and (not folder.is_dir() or any(path.suffix != ".part" for path in folder.iterdir())):
        hint = " or --resume_from latest" if (folder / "run.json").exists() else ""
        raise InputError(f"{folder} is not empty and would be overwritten; give another --output_dir{hint}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be written: {error.strerror}") from error
    return folder


def check_same_run(before: dict[str, Any], now: dict[str, Any]) -> None:
    """A resumed run must be the run that it resumes.

    Raises:
        InputError: a field that decides what is computed has changed.
    """
    before = {**_DONE_BEFORE, **before}
    # Rounding differs between sizes of batches, and corrupted images do: another student might be the best.
    bound = {"eval_batch_size"} if now.get("load_best_model_at_end") or now.get("early_stopping_patience") else set()
    changed = [
        f"{name} was {before.get(name)!r}, is {value!r}"
        for name, value in now.items()
        # A record of an earlier version lacks fields that have come since; what is off now was not there then.
        if name not in _FREE_ON_RESUME - bound
        and before.get(name) != value
        and (name in before or (value and value != "none"))
    ]
    if changed:
        is_old = "preset" not in before and now.get("preset", "scratch") != "scratch"
        hint = ". It was started before there were presets: add --preset scratch" if is_old else ""
        raise InputError("a run is resumed with the fields it was started with, but " + "; ".join(changed) + hint)
