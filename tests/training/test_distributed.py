"""Two processes on the CPU are one process with the same batch, and a launch that starts fewer is refused."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transinv.config import OutputConfig
from hf_transinv.record import read_metrics
from tests.launching import (
    ACCELERATE,
    MULTI_TEACHER,
    PYTHON,
    TWO_PROCESSES,
    environment,
    launch,
    saved_steps,
    succeed,
    tiny_vit_folder,
)
from tests.tiny_run import tensors_of, tiny_trainer

ON_CPU = {"ACCELERATE_USE_CPU": "true"}
MEASURED = OutputConfig(eval_steps=2, load_best_model_at_end=True)
OPTIONS = {"max_steps": 6, "save_steps": 3, "logging_steps": 1, "output": MEASURED}
# AdamW's first steps are the gradient's sign; a larger epsilon keeps the rounding of a zero from deciding it.
EPSILON = 1e-3

ONE_OF_TWO = f"""
import sys
from pathlib import Path
import torch
from hf_transinv.config import DataConfig, OutputConfig, TrainConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.session import Session
from tests.tiny_run import tensors_of, tiny_trainer

folder = Path(sys.argv[1])
trainer = tiny_trainer(folder / "two", **{OPTIONS})
accelerator = trainer.accelerator
assert accelerator.num_processes == 2
for group in trainer.optimizers["augmentation"].param_groups:
    group["eps"] = {EPSILON}
trainer.train()
end = tensors_of(trainer)
resumed = tiny_trainer(folder / "two", **{OPTIONS})
resumed.resume(folder / "two" / "checkpoints" / "step_00000003")
resumed.train()
try:
    Session("odd", DataConfig(), TrainConfig(max_steps=1, batch_size=15), OutputConfig(), {{}})
except InputError as error:
    refusal = str(error)
told = trainer.validation.told()
assert told == resumed.validation.told()
saved = {{"end": end, "resumed": tensors_of(resumed), "refusal": refusal, "told": told}}
torch.save(saved, folder / f"rank{{accelerator.process_index}}.pt")
accelerator.wait_for_everyone()
accelerator.end_training()
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folder of a run in two processes and one in this one, this one's end, and what each of the two saved."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "main.py").write_text(ONE_OF_TWO)
    succeed(TWO_PROCESSES, folder / "main.py", folder, cwd=folder, **ON_CPU)
    alone = tiny_trainer(folder / "one", **OPTIONS)
    for group in alone.optimizers["augmentation"].param_groups:
        group["eps"] = EPSILON
    alone.train()
    torch.save(alone.validation.told(), folder / "told.pt")
    ranks = [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]
    return folder, tensors_of(alone), ranks


def test_both_processes_end_with_the_same_bits(both):
    """Student, phi, p, q, r, the multipliers and the average."""
    first, second = (rank["end"] for rank in both[2])
    assert first.keys() == second.keys() >= {"augmentation.logits_r", "augmentation.models.0.logits_p"}
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_processes_give_the_parameters_of_one(both):
    alone, first = both[1], both[2][0]["end"]
    differences = {name: (alone[name].float() - first[name].float()).abs().max().item() for name in alone}
    assert max(differences.values()) < 1e-5, max(differences, key=differences.get)


def test_two_processes_give_the_losses_of_one(both):
    folder = both[0]
    of_both = (read_metrics(folder / name / "metrics.jsonl") for name in ("one", "two"))
    one, two = ([line for line in lines if "eval/top1" not in line] for lines in of_both)
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"images_per_second"}:
            torch.testing.assert_close(torch.tensor(a[name]), torch.tensor(b[name]), rtol=1e-4, atol=1e-5)


def test_two_processes_resume_to_the_bit(both):
    """From step 3, in mid-epoch and mid-cycle."""
    for rank in both[2]:
        assert all(torch.equal(tensor, rank["resumed"][name]) for name, tensor in rank["end"].items())


def test_one_process_goes_on_where_two_stopped(both, tmp_path):
    """From step 3 of the two; the student has no dropout and no BatchNorm."""
    folder, alone, _ = both
    shutil.copytree(folder / "two" / "checkpoints" / "step_00000003", tmp_path / "checkpoints" / "step_00000003")
    resumed = tiny_trainer(tmp_path, **OPTIONS)
    resumed.resume(tmp_path / "checkpoints" / "step_00000003")
    resumed.train()
    end = tensors_of(resumed)
    assert resumed.step == 6
    differences = {name: (alone[name].float() - end[name].float()).abs().max().item() for name in alone}
    assert max(differences.values()) < 1e-5, max(differences, key=differences.get)


def test_two_processes_are_measured_as_one(both):
    """Both find the same best student."""
    alone = torch.load(both[0] / "told.pt")
    for rank in both[2]:
        assert rank["told"]["figures"]["top1"] == alone["figures"]["top1"]
        assert rank["told"]["value"] == pytest.approx(alone["value"], abs=1e-5)
        assert rank["told"]["step"] == alone["step"]
    assert both[2][0]["told"] == both[2][1]["told"]


def test_a_batch_that_two_processes_cannot_share_is_refused(both):
    for rank in both[2]:
        assert "batch_size 15 cannot be split into 2 processes x 1 micro-batches" in rank["refusal"]


def flags(folder: Path) -> list[object]:
    student = tiny_vit_folder(folder / "vit", ["0", "1"])
    given = [
        "--dataset",
        "digits/target",
        "--image_size",
        32,
        "--student",
        student,
        "--teachers",
        "ema",
        "--batch_size",
        16,
    ]
    given += ["--max_steps", 3, "--inner_steps", 2, "--eval_corruptions", "none", "--output_dir", folder / "out"]
    return given


def test_the_recipe_runs_in_two_processes(tmp_path):
    done = succeed(TWO_PROCESSES, MULTI_TEACHER, *flags(tmp_path), cwd=tmp_path, **ON_CPU)
    assert done.stdout.count("Measured on 796 images") == 1
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["status"] == "finished" and run["rows"]["paired + TransInv"]["images_seen"] == 48
    assert (tmp_path / "out" / "student" / "model.safetensors").exists()


def test_a_launch_that_starts_one_process_instead_of_two_is_refused(tmp_path):
    launcher = [*ACCELERATE, "--cpu", "--num_processes", "2"]
    done = launch(launcher, MULTI_TEACHER, *flags(tmp_path), cwd=tmp_path)
    assert done.returncode != 0
    assert "ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2" in done.stderr
    assert not (tmp_path / "out").exists()


def two_by_hand(folder: Path, *given: object) -> list[subprocess.Popen]:
    """Two processes of one run that nobody watches over, what they say in `folder`/said0 and said1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **ON_CPU}
        with open(folder / f"said{rank}", "w") as said:
            command = [*PYTHON, str(MULTI_TEACHER), *map(str, given)]
            options = {"cwd": folder, "env": environment(folder, **place), "stdout": said, "stderr": said}
            started.append(subprocess.Popen(command, **options))
    return started


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_killed_ends_the_other_and_the_run_goes_on(tmp_path, lost):
    """The other says so and ends by itself; resumed, both end with the bits of a run that nobody disturbed."""
    given = [*flags(tmp_path)[:-1], "whole", "--max_steps", 24, "--save_steps", 4, "--logging_steps", 2]
    succeed(TWO_PROCESSES, MULTI_TEACHER, *given, cwd=tmp_path, **ON_CPU)
    given[given.index("whole")] = "out"
    processes = two_by_hand(tmp_path, *given)
    try:
        while not saved_steps(tmp_path / "out") and all(process.poll() is None for process in processes):
            time.sleep(0.01)
        processes[lost].send_signal(signal.SIGKILL)
        code = processes[1 - lost].wait(timeout=120)
    finally:
        for process in processes:
            process.kill()
    last = (tmp_path / f"said{1 - lost}").read_text().splitlines()[-1]
    assert code == 4 and last.startswith("error: another process of this run has ended"), last
    assert "--resume_from latest" in last
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "running"
    succeed(TWO_PROCESSES, MULTI_TEACHER, *given, "--resume_from", "latest", cwd=tmp_path, **ON_CPU)
    for name in ("student/model.safetensors", "augmentation/augmentation.safetensors"):
        one, two = (load_file(tmp_path / run / name) for run in ("whole", "out"))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    lines = [
        [{key: value for key, value in line.items() if key != "images_per_second"} for line in read_metrics(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "out" / "metrics.jsonl")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 12


@pytest.mark.slow
def test_torchrun_ends_the_others_when_one_is_killed(tmp_path):
    given = [*flags(tmp_path), "--max_steps", 100_000, "--save_steps", 4]
    with open(tmp_path / "said", "w+") as said:
        options = {"cwd": tmp_path, "env": environment(tmp_path, **ON_CPU), "stdout": said, "stderr": said}
        process = subprocess.Popen([*TWO_PROCESSES, str(MULTI_TEACHER), *map(str, given)], **options)
        try:
            while not saved_steps(tmp_path / "out") and process.poll() is None:
                time.sleep(0.01)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            (worker,) = [
                int(child) for child in children if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()
            ]
            os.kill(worker, signal.SIGKILL)
            assert process.wait(timeout=180) == 1
        finally:
            process.kill()
        said.seek(0)
        assert "error: another process of this run has ended" in said.read()
