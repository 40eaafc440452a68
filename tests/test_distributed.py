"""Two processes on the CPU are one process with the same batch, and a launch that starts fewer is refused."""

import json
from pathlib import Path

import pytest
import torch

from hf_transinv.record import read_metrics
from tests.launching import ACCELERATE, MULTI_TEACHER, TWO_PROCESSES, launch, succeed, tiny_vit_folder
from tests.tiny_run import tensors_of, tiny_trainer

ON_CPU = {"ACCELERATE_USE_CPU": "true"}
OPTIONS = {"max_steps": 6, "save_steps": 3, "logging_steps": 1}
# AdamW's first steps are the gradient's sign; a larger epsilon keeps the rounding of a zero from deciding it.
EPSILON = 1e-3

ONE_OF_TWO = f"""
import sys
from pathlib import Path
import torch
from hf_transinv.config import DataConfig, OutputConfig, TrainConfig
from hf_transinv.errors import InputError
from hf_transinv.run import Session
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
saved = {{"end": end, "resumed": tensors_of(resumed), "refusal": refusal}}
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
    assert max(differences.values()) < 2e-6, max(differences, key=differences.get)


def test_two_processes_give_the_losses_of_one(both):
    folder = both[0]
    one, two = (read_metrics(folder / name / "metrics.jsonl") for name in ("one", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"images_per_second"}:
            torch.testing.assert_close(torch.tensor(a[name]), torch.tensor(b[name]), rtol=1e-4, atol=1e-5)


def test_two_processes_resume_to_the_bit(both):
    """From step 3, in mid-epoch and mid-cycle."""
    for rank in both[2]:
        assert all(torch.equal(tensor, rank["resumed"][name]) for name, tensor in rank["end"].items())


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
    assert done.stdout.count("| TransInv |") == 1
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["status"] == "finished" and run["rows"]["TransInv"]["images_seen"] == 48
    assert (tmp_path / "out" / "student" / "model.safetensors").exists()


def test_a_launch_that_starts_one_process_instead_of_two_is_refused(tmp_path):
    launcher = [*ACCELERATE, "--cpu", "--num_processes", "2"]
    done = launch(launcher, MULTI_TEACHER, *flags(tmp_path), cwd=tmp_path)
    assert done.returncode != 0
    assert "ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2" in done.stderr
    assert not (tmp_path / "out").exists()
