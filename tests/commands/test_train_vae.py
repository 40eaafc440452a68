"""recipes/train_vae.py as users launch it: trained, measured, saved, resumed."""

import json

import pytest

from hf_transinv.models.conv_vae import load_vae
from tests.launching import PYTHON, REPOSITORY, launch, succeed

TRAIN_VAE = REPOSITORY / "recipes" / "train_vae.py"
FLAGS = ("--dataset", "digits/source", "--image_size", 16, "--crop", "none", "--flip", "false", "--vae_width", 8)
LOOP = ("--batch_size", 32, "--optimizer", "adamw", "--learning_rate", 0.01, "--save_steps", 40)


def test_a_vae_is_trained_measured_and_resumed_to_the_bit(tmp_path):
    flags = [*FLAGS, *LOOP, "--max_steps", 120]
    done = succeed(PYTHON, TRAIN_VAE, *flags, "--output_dir", "out", cwd=tmp_path)
    config = json.loads((tmp_path / "out" / "vae" / "config.json").read_text())
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    results = config["results"]
    assert run["status"] == "finished" and run["results"] == results and results["eval_images"] == 178
    assert results["mean_squared_error"] < 0.8 * results["of_mean_image"]
    assert f"{results['mean_squared_error']:.5f}" in done.stdout
    scale = load_vae(tmp_path / "out" / "vae").latent_scale.item()
    assert scale * results["latent_sd"] == pytest.approx(1, rel=1e-5)  # latents of unit variance
    weights = (tmp_path / "out" / "vae" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "vae" / "model.safetensors").write_bytes(b"")
    again = [*flags, "--output_dir", "out", "--resume_from", "out/checkpoints/step_00000080"]
    succeed(PYTHON, TRAIN_VAE, *again, cwd=tmp_path)
    assert (tmp_path / "out" / "vae" / "model.safetensors").read_bytes() == weights


def test_sides_that_cannot_be_halved_are_refused(tmp_path):
    flags = [*FLAGS, "--vae_halvings", 5, "--max_steps", 2]
    done = launch(PYTHON, TRAIN_VAE, *flags, "--output_dir", "out", cwd=tmp_path)
    assert done.returncode == 2 and "divisible by 32" in done.stderr and "Traceback" not in done.stderr
