"""What a run measures at its end, and where its output goes."""

from dataclasses import dataclass

from hf_transinv.config.checks import at_least, one_of
from hf_transinv.errors import InputError


@dataclass
class OutputConfig:
    """The evaluation at the end, and the output of the run.

    Attributes:
        output_dir: folder of the run; default: a new one under outputs/, named by recipe and time.
        resume_from: latest, or a checkpoint folder of the run.
        report_to: tensorboard, wandb, trackio or none.
        push_to_hub: USER/NAME to publish the output under; the token is taken from the environment or the login.
        private: create that repository as a private one.
        hub_revision: branch to push to, created when it does not exist; default: main.
        push_every: student steps between two pushes of the student during training; each follows a checkpoint
            (save_steps). Default: only the finished student is pushed.
        license: of the student, for its card; it must agree with those of its data and of the weights it started from.
        baselines: baselines to train besides, on as many images: plain (no augmentation at all), crop_flip.
        eval_corruptions: corruptions of the evaluation; default: all; none: clean images only.
        eval_severities: severities, 1 to 5.
        eval_augment: augmentations to evaluate under besides, each image augmented once: pad_crop, grayscale,
            color_jitter; with each, how much predictions and features change.
        eval_batch_size: images per evaluation batch.
    """

    output_dir: str | None = None
    resume_from: str | None = None
    report_to: str = "none"
    push_to_hub: str | None = None
    private: bool = False
    hub_revision: str | None = None
    push_every: int | None = None
    license: str = "apache-2.0"
    baselines: tuple[str, ...] = ()
    eval_corruptions: tuple[str, ...] = ("all",)
    eval_severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    eval_augment: tuple[str, ...] = ()
    eval_batch_size: int = 500

    def __post_init__(self) -> None:
        one_of("report_to", self.report_to, ("tensorboard", "wandb", "trackio", "none"))
        for baseline in self.baselines:
            one_of("baselines", baseline, ("plain", "crop_flip"))
        if not self.eval_severities or not set(self.eval_severities) <= {1, 2, 3, 4, 5}:
            raise InputError(f"eval_severities {list(self.eval_severities)}: expected some of 1 to 5")
        at_least("eval_batch_size", self.eval_batch_size, 1)
        if self.push_every is not None:
            at_least("push_every", self.push_every, 1)
        if self.push_to_hub is None and (self.private or self.hub_revision or self.push_every):
            raise InputError("private, hub_revision and push_every are for push_to_hub USER/NAME: give that as well")
