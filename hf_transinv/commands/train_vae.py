r"""Train a small VAE on any images, for HARD's augmenter that moves latents (--hard_augmenter vae).

transinv train-vae --config cifar_vae --output_dir outputs/vae
transinv train-vae --dataset digits/source --image_size 16 --max_steps 300 \
    --vae_width 16
    the embedded digits: a minute on one core

The VAE is in OUTPUT_DIR/vae: config.json and model.safetensors.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed

from hf_transinv.config import DataConfig, OutputConfig, TrainConfig, as_dict
from hf_transinv.config.checks import choice
from hf_transinv.data.run_data import ordinary
from hf_transinv.data.transforms import to_float
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import Stopped
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.session import Session
from hf_transinv.formats.terminal import block
from hf_transinv.models.conv_vae import ConvVAE, VAEConfig, save_vae
from hf_transinv.objectives.elbo import VAEObjective
from hf_transinv.training.checkpointing import checkpoints
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup


@dataclass
class VAEOutputConfig:
    """Where the output goes.

    Attributes:
        output_dir: folder of the run; default: a new one under outputs/, named by recipe and time.
        resume_from: latest, or a checkpoint folder of the run.
        report_to: tensorboard, wandb, trackio or none.
        eval_batch_size: images in a batch of the evaluation.
    """

    output_dir: str | None = None
    resume_from: str | None = choice(None, ("latest", "FOLDER"), is_closed=False)
    report_to: str = choice("none", ("tensorboard", "wandb", "trackio", "none"), is_closed=False)
    eval_batch_size: int = 500

    def output(self) -> OutputConfig:
        """The same for a `Session`, without corruptions, since nothing is classified."""
        return OutputConfig(
            output_dir=self.output_dir,
            resume_from=self.resume_from,
            report_to=self.report_to,
            eval_batch_size=self.eval_batch_size,
            eval_corruptions=("none",),
        )


@torch.no_grad()
def measure(vae: ConvVAE, images: torch.Tensor, batch_size: int) -> dict[str, float]:
    """How well images are reconstructed from their mean latents.

    Args:
        vae: in eval mode.
        images: uint8 [N, 3, H, W], all of a split, on the VAE's device.
        batch_size: images at a time.

    Returns:
        "mean_squared_error" of pixels in [0, 1]; "of_mean_image": that of the mean over all images, in place of a
        reconstruction; "psnr" in dB; "latent_sd": standard deviation of the mean latents as encoded.
    """
    height, width = images.shape[-2:]
    zero = torch.zeros((), dtype=torch.float64, device=images.device)
    squared, of_mean_image, latent_sum, latent_squared, count = zero, zero, zero, zero, 0
    mean_image = images.double().mean(0) / 255
    for part in images.split(batch_size):
        pixels = to_float(part)
        latents = vae.encode(pixels)
        squared = squared + (vae.decode(latents, (height, width)).clamp(0, 1) - pixels).double().square().sum()
        of_mean_image = of_mean_image + (pixels.double() - mean_image).square().sum()
        latent_sum = latent_sum + latents.double().sum()
        latent_squared = latent_squared + latents.double().square().sum()
        count += latents.numel()
    error = squared / images.numel()
    variance = latent_squared / count - (latent_sum / count) ** 2
    return {
        "mean_squared_error": error.item(),
        "of_mean_image": (of_mean_image / images.numel()).item(),
        "psnr": (-10 * error.log10()).item(),
        "latent_sd": variance.sqrt().item(),
    }


def build_trainer(session: Session, vae: ConvVAE, data: DataConfig) -> Trainer:
    """The training loop; `Session.fit` is for classifiers, which it evaluates."""
    train, accelerator = session.train, session.accelerator
    feeds = {"student": session.data.feed(train.batch_size, train.seed, accelerator)}
    crop_flip = ordinary(data)
    steps = session.steps()
    return Trainer(
        accelerator, VAEObjective(vae), TrainerSetup(feeds, crop_flip, train, *steps, session.folder, "vae")
    )


def resume(trainer: Trainer, resume_from: str | None, session: Session) -> None:
    """Go on from the checkpoint that was named, or from the newest one if there is one."""
    saved = checkpoints(session.folder / "checkpoints")
    if resume_from == "latest" and saved:
        trainer.resume(saved[-1])
    elif resume_from not in (None, "latest"):
        trainer.resume(Path(resume_from))


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    groups, _ = parse_run([DataConfig, TrainConfig, VAEConfig, VAEOutputConfig], description=description)
    data, train, size, where = groups
    session = Session("train_vae", data, train, where.output(), as_dict(*groups))
    splits = session.splits
    if splits.validation is not None and splits.validation is not splits.evaluation:
        raise InputError(
            f"a VAE is measured once, at its end, on split {splits.evaluation.split}: leave out validation_share and "
            "validation_split"
        )
    set_seed(train.seed)
    vae = ConvVAE(size)
    if data.image_size:
        vae.latent_shape(data.image_size, data.image_size)  # refuses sides that cannot be halved
    images = session.data.evaluation.images
    vae.latent_shape(*images.shape[-2:])
    trainer = build_trainer(session, vae, data)
    resume(trainer, where.resume_from, session)
    if session.record:
        session.record.update(status="running")
        session.note_skipped(session.data.skipped)
        print(f"{block(session.data.described)}\n", flush=True)
    session.tracking.open("vae", session.folder, trainer.objective, as_dict(*groups))
    try:
        trainer.train()
    finally:
        for feed in trainer.feeds.values():
            feed.close()
    if trainer.stopped:
        raise Stopped(
            f"stopped at step {trainer.step}; go on with the same command and: --output_dir {session.folder} "
            "--resume_from latest"
        )
    if session.record:
        vae.eval()
        found = measure(vae, images, where.eval_batch_size)
        vae.get_buffer("latent_scale").fill_(1 / found["latent_sd"])
        results = {**found, "dataset": data.dataset, "eval_images": len(images), "image_size": images.shape[-1]}
        save_vae(vae, session.folder / "vae", {"results": results})
        session.record.update(
            status="finished", results=results, steps=trainer.step, train_seconds=round(trainer.seconds, 1)
        )
        error, trivial = found["mean_squared_error"], found["of_mean_image"]
        print(
            f"\nMean squared error {error:.5f} (of the mean image {trivial:.5f}), PSNR {found['psnr']:.1f} dB on "
            f"{len(images)} images.\nThe VAE is in {session.folder / 'vae'}"
        )
    session.leave()
