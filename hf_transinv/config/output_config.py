"""What a run measures, while it trains and at its end, and where its output goes."""

import math
from dataclasses import dataclass

from hf_transinv.config.checks import at_least, check_choices, choice
from hf_transinv.config.data_config import DataConfig
from hf_transinv.errors import InputError


@dataclass
class OutputConfig:
    """The evaluation while training and at the end, and the output of the run.

    Attributes:
        output_dir: folder of the run; default: a new one under outputs/, named by recipe and time.
        resume_from: latest, or a checkpoint folder of the run.
        extend_to_steps: with resume_from: go on to so many student steps in all, more than the run was started with.
            From there on the learning rate is that of a run of this length.
        report_to: tensorboard, wandb, trackio or none.
        push_to_hub: USER/NAME to publish the output under; the token is taken from the environment or the login.
        private: create that repository as a private one.
        hub_revision: branch to push to, created when it does not exist; default: main.
        push_every: student steps between two pushes of the student during training; each follows a checkpoint
            (save_steps). Default: only the finished student is pushed.
        license: of the student, for its card; it must agree with those of its data and of the weights it started from.
        baselines: baselines to train besides, on as many images: plain (no augmentation at all), crop_flip (random
            resized crops with crop resized, else shifts by an eighth; and flips).
        eval_corruptions: corruptions of the evaluation; default: all; none: clean images only.
        eval_severities: severities, 1 to 5.
        eval_augment: augmentations to evaluate under besides, each image augmented once: pad_crop, grayscale,
            color_jitter; with each, how much predictions and features change.
        eval_batch_size: images per evaluation batch.
        eval_steps: student steps between two measurements on the validation part (validation_share or
            validation_split); another follows the last step. Default: only that one, where there is such a part.
        eval_epochs: the same in passes over the training split; give either this or eval_steps.
        validation_corruptions: corruptions of the validation part, on whose mean top-1 the student is measured
            besides; all: every one. Default: clean images only.
        validation_severity: their severity, 1 to 5; default: 3.
        load_best_model_at_end: evaluate and export the best student on the validation part instead of the last one.
        metric_for_best_model: what the best student is best in: loss (lowest; the default, as in transformers), top1
            or corrupted (highest).
        early_stopping_patience: end the training when this many measurements in a row were no better than the best.
    """

    output_dir: str | None = None
    resume_from: str | None = choice(None, ("latest", "FOLDER"), is_closed=False)
    extend_to_steps: int | None = None
    report_to: str = choice("none", ("tensorboard", "wandb", "trackio", "none"))
    push_to_hub: str | None = None
    private: bool = False
    hub_revision: str | None = None
    push_every: int | None = None
    license: str = "apache-2.0"
    baselines: tuple[str, ...] = choice((), ("plain", "crop_flip"))
    eval_corruptions: tuple[str, ...] = ("all",)
    eval_severities: tuple[int, ...] = choice((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), is_closed=False)
    eval_augment: tuple[str, ...] = ()
    eval_batch_size: int = 500
    eval_steps: int | None = None
    eval_epochs: float | None = None
    validation_corruptions: tuple[str, ...] = ()
    validation_severity: int | None = choice(None, (1, 2, 3, 4, 5))
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = choice(None, ("loss", "top1", "corrupted"))
    early_stopping_patience: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.eval_severities or not set(self.eval_severities) <= {1, 2, 3, 4, 5}:
            raise InputError(f"eval_severities {list(self.eval_severities)}: expected some of 1 to 5")
        at_least("eval_batch_size", self.eval_batch_size, 1)
        if self.push_every is not None:
            at_least("push_every", self.push_every, 1)
        if self.push_to_hub is None and (self.private or self.hub_revision or self.push_every):
            raise InputError("private, hub_revision and push_every are for push_to_hub USER/NAME: give that as well")
        if self.extend_to_steps is not None and self.resume_from is None:
            raise InputError(
                f"extend_to_steps {self.extend_to_steps} is for a run that was started before: give --resume_from "
                "latest and its --output_dir as well"
            )
        self._check_validation()

    def _check_validation(self) -> None:
        corruptions = set(self.validation_corruptions) - {"none"}
        if self.eval_steps is not None and self.eval_epochs is not None:
            raise InputError(
                f"give eval_steps or eval_epochs, not both (given {self.eval_steps} and {self.eval_epochs})"
            )
        for name in ("eval_steps", "extend_to_steps", "early_stopping_patience"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        if self.eval_epochs is not None and not 0 < self.eval_epochs < math.inf:
            raise InputError(f"eval_epochs must be positive, given {self.eval_epochs}")
        if self.validation_severity is not None and not corruptions:
            raise InputError("validation_severity is that of validation_corruptions: give those as well")
        chooses = self.load_best_model_at_end or self.early_stopping_patience is not None
        if chooses and self.eval_steps is None and self.eval_epochs is None:
            raise InputError(
                "load_best_model_at_end and early_stopping_patience compare measurements made while training: say how "
                "often, with eval_steps or eval_epochs"
            )
        if self.metric_for_best_model is not None:
            if not chooses:
                raise InputError(
                    "metric_for_best_model is for load_best_model_at_end and early_stopping_patience: give one of them"
                )
            if self.metric_for_best_model == "corrupted" and not corruptions:
                raise InputError("metric_for_best_model corrupted: name the corruptions, --validation_corruptions ...")


def check_validation(data: DataConfig, output: OutputConfig, ema: str = "none") -> None:
    """Raises InputError where a run is to be measured while it trains and has no images for that, or in vain.

    Args:
        data: which splits there are.
        output: what is measured.
        ema: what becomes of the student's average (`TrainConfig.ema`).
    """
    if output.load_best_model_at_end and ema == "instead":
        raise InputError(
            "load_best_model_at_end chooses among the student's own weights, and ema instead exports their average of "
            "the last step: give one of the two, or ema beside"
        )
    asked = [name for name in ("eval_steps", "eval_epochs", "validation_corruptions") if getattr(output, name)]
    if asked and not data.validation_share and data.validation_split is None:
        raise InputError(
            f"{asked[0]} measures the student while it trains, which the images of the evaluation at the end are not "
            "for: hold out a share of every class of the training split (--validation_share 0.1) or name another "
            "split (--validation_split validation)"
        )
