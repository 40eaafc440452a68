"""The real way in: recipes in processes of their own, as a user at a terminal starts them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch

from hf_transinv.hub.export import export_classifier
from hf_transinv.models.classifier import open_classifier
from hf_transinv.training.checkpointing import checkpoints

REPOSITORY = Path(__file__).parents[1]
MULTI_TEACHER = REPOSITORY / "recipes" / "multi_teacher.py"
TRAIN_TEACHER = REPOSITORY / "recipes" / "train_teacher.py"
EVALUATE = REPOSITORY / "recipes" / "evaluate.py"
PYTHON = [sys.executable]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """No network, caches below `folder`, one thread, the CPU."""
    private = {"HF_HOME": str(folder / "hf_home"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    launched = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    inherited = {name: value for name, value in os.environ.items() if name not in launched}
    return inherited | private | own | variables


def launch(
    launcher: list[str], recipe: Path, *flags: object, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a recipe to its end; the caller looks at returncode, stdout and stderr."""
    command = [*launcher, str(recipe), *map(str, flags)]
    env = environment(cwd, **variables)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def succeed(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`launch`, with what the process said when it failed."""
    done = launch(*arguments, **options)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr[-5000:]}"
    return done


def end_when(
    condition: Callable[[], bool], number: signal.Signals, recipe: Path, *flags: object, cwd: Path
) -> tuple[int, str]:
    """Start a recipe, send it a signal as soon as a condition holds; returns exit code and what it said."""
    command = [*PYTHON, str(recipe), *map(str, flags)]
    with open(cwd / "said.txt", "w+") as said:
        process = subprocess.Popen(command, cwd=cwd, env=environment(cwd), stdout=said, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 600
            while not condition() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(number)
            process.wait(timeout=600)
        finally:
            process.kill()
        said.seek(0)
        return process.returncode, said.read()


def saved_steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step_")) for path in checkpoints(folder / "checkpoints")]


def tiny_teachers(folder: Path) -> list[str]:
    """Two exported networks for 32 px that know the digits 0 to 4: one with BatchNorm, one without."""
    torch.manual_seed(1)
    names = [str(digit) for digit in range(5)]
    wide = open_classifier("wrn10_1_cifar", num_classes=5, label_names=names, pretrained=False)
    export_classifier(wide, folder / "wide")
    vit = tiny_vit_folder(folder / "vit", names)
    return [str(folder / "wide"), str(vit)]


def tiny_vit_folder(folder: Path, label_names: list[str]) -> Path:
    """timm's smallest ViT built for 32 px, in timm's own layout; no BatchNorm."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    network = timm.create_model("test_vit", num_classes=len(label_names), **sizes)
    extra = {"label_names": label_names}
    timm.models.save_for_hf(network, folder, model_config=extra, model_args=sizes, safe_serialization=True)
    return folder
