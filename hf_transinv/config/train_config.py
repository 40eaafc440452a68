"""The training loop of a run."""

import math
from dataclasses import dataclass

from hf_transinv.config.checks import at_least, check_choices, choice, one_of
from hf_transinv.errors import InputError

SCHEDULES = ("cosine", "tanh", "constant", "wsd", "rsqrt")
"""timm's schedules whose shape follows from the number of steps alone."""
_OTHER_SCHEDULES = {
    "step": "timm lowers the rate every 90 epochs, which would be 90 student steps here",
    "multistep": "timm lowers the rate at epochs 90, 180 and 270, which would be student steps here",
    "poly": "timm takes its power from decay_rate, which cannot be given here and is 0.1",
    "plateau": "it follows a measurement after each epoch, and a run counts student steps",
    "none": "it has neither warm-up nor the rates of layer_decay and head_learning_rate, which constant has",
}
"""Why the others of timm are refused."""


@dataclass
class TrainConfig:
    """The training loop.

    Attributes:
        num_train_epochs: passes of the student over the training split; give either this or max_steps.
        max_steps: student steps.
        batch_size: images per step, over all processes and micro-batches.
        gradient_accumulation_steps: micro-batches into which a process splits its share of the batch.
        preset: defaults of optimizer, learning_rate, momentum, weight_decay, lr_scheduler, warmup_ratio and
            layer_decay, each of which may still be given: scratch, finetune_cnn, finetune_transformer, or auto, by
            what the student is and starts from (in a comparison: scratch).
        optimizer: of the student, by timm's name; sgd is Nesterov's.
        learning_rate: of the student, at its peak.
        head_learning_rate: of the student's classifier head, in place of learning_rate, with the same schedule.
        layer_decay: the learning rate of each layer of the student is that of the next one times this, in (0, 1], and
            the last one's is learning_rate. Default: all layers learn at the same rate, but see preset.
        freeze: keep a part of the student as it was loaded, its BatchNorm statistics included: all (but the classifier
            head), or a number N: its first N groups of layers (the stem, then stages, or blocks of a transformer).
        linear_probe_share: share of the student's steps, in [0, 1), that come first and train its classifier head
            alone; then all of it trains, with the same schedule (LP-FT).
        momentum: of the student's optimizer.
        weight_decay: of the student; not on biases, normalisation, position embeddings and class tokens.
        lr_scheduler: of the student, by timm's name: cosine, tanh, constant (after the warm-up), wsd (constant, then
            down over the last fifth of the steps) or rsqrt (reciprocal square root, then likewise).
        warmup_ratio: share of the steps, in [0, 1), in which the learning rate rises.
        max_grad_norm: clip the student's gradient at this norm; 0: no clipping.
        label_smoothing: of the student's loss.
        ema: what becomes of the student's exponential moving average (see ema_decay): none (there is none), beside
            (it is measured, and exported beside the student), or instead (it is exported as the student).
        interpolate: alpha, in (0, 1): what is measured and exported at the end is (1 - alpha) times the weights that
            the student started from and alpha times those it was trained to, but for the classifier head; the
            statistics of BatchNorm are estimated anew.
        augment_learning_rate: of phi (AdamW).
        augment_weight_decay: of phi.
        selection_learning_rate: of the logits of p, q and r (Adam).
        seed: of all random numbers.
        channels_last: memory layout of the networks, where they are not sharded.
        sync_batchnorm: on several GPUs, compute BatchNorm statistics over the images of all of them. Without it each
            GPU normalises by its own images, and the first GPU's running statistics are used.
        compile: compile students and teachers by torch.compile; the first steps then take minutes. Evaluation is not
            compiled.
        logging_steps: student steps between two lines of metrics.jsonl.
        save_steps: student steps between two checkpoints; default: an epoch.
        save_total_limit: checkpoints kept.
        ddp_timeout: seconds that a process waits for the others before it takes them for lost and ends the run. One
            process alone may take long over a download or an upload: give as much as the slowest needs.
    """

    num_train_epochs: float | None = None
    max_steps: int | None = None
    batch_size: int = 128
    gradient_accumulation_steps: int = 1
    preset: str = choice("auto", ("auto", "scratch", "finetune_cnn", "finetune_transformer"))
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    head_learning_rate: float | None = None
    layer_decay: float | None = None
    freeze: int | str | None = choice(None, ("all", "N"), is_closed=False)
    linear_probe_share: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_scheduler: str = choice("cosine", SCHEDULES, is_closed=False)
    warmup_ratio: float = 0.05
    max_grad_norm: float = 5.0
    label_smoothing: float = 0.0
    ema: str = choice("none", ("none", "beside", "instead"))
    interpolate: float | None = None
    augment_learning_rate: float = 1e-3
    augment_weight_decay: float = 1e-2
    selection_learning_rate: float = 0.03
    seed: int = 0
    channels_last: bool = True
    sync_batchnorm: bool = False
    compile: bool = False
    logging_steps: int = 50
    save_steps: int | None = None
    save_total_limit: int = 2
    ddp_timeout: int = 600

    def __post_init__(self) -> None:
        check_choices(self)
        if (self.num_train_epochs is None) == (self.max_steps is None):
            raise InputError(
                f"give num_train_epochs or max_steps, one of the two "
                f"(given {self.num_train_epochs} and {self.max_steps})"
            )
        for name in ("batch_size", "gradient_accumulation_steps", "logging_steps", "save_total_limit", "ddp_timeout"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        for name in ("num_train_epochs", "max_steps", "save_steps"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive, given {getattr(self, name)}")
        for name in ("weight_decay", "max_grad_norm", "augment_weight_decay", "warmup_ratio", "momentum"):
            at_least(name, getattr(self, name), 0)
        for name in ("learning_rate", "augment_learning_rate", "selection_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive, given {getattr(self, name)}")
        self._check_schedule()
        self._check_fine_tuning()
        if self.warmup_ratio >= 1 or not 0 <= self.label_smoothing < 1:
            raise InputError("warmup_ratio and label_smoothing must be in [0, 1)")

    def _check_schedule(self) -> None:
        if self.lr_scheduler in _OTHER_SCHEDULES:
            raise InputError(
                f"lr_scheduler {self.lr_scheduler!r}: {_OTHER_SCHEDULES[self.lr_scheduler]}. Expected one of "
                f"{', '.join(SCHEDULES)}"
            )
        one_of("lr_scheduler", self.lr_scheduler, SCHEDULES)

    def _check_fine_tuning(self) -> None:
        if self.head_learning_rate is not None and not 0 < self.head_learning_rate < math.inf:
            raise InputError(f"head_learning_rate must be positive, given {self.head_learning_rate}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay must be in (0, 1], given {self.layer_decay}")
        if self.freeze is not None and self.freeze != "all" and not (type(self.freeze) is int and self.freeze >= 1):
            raise InputError(f"freeze {self.freeze!r}: expected all, or how many groups of layers, at least 1")
        if not 0 <= self.linear_probe_share < 1:
            raise InputError(
                f"linear_probe_share is a share of the steps, in [0, 1), given {self.linear_probe_share}; freeze all "
                "trains the classifier head alone all the time"
            )
        if self.freeze == "all" and self.linear_probe_share:
            raise InputError("freeze all trains the classifier head alone all the time: leave out linear_probe_share")
        if self.interpolate is not None:
            self._check_interpolation(self.interpolate)
        for name in ("layer_decay", "head_learning_rate"):
            if self.freeze == "all" and getattr(self, name) is not None:
                raise InputError(
                    f"freeze all trains the classifier head alone, whose rate is learning_rate: leave out {name}"
                )

    def _check_interpolation(self, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise InputError(
                f"interpolate must be in (0, 1), given {alpha:g}: 1 is the trained student (leave it out), 0 the "
                "backbone as it started (freeze all trains a head for that)"
            )
        if self.freeze == "all":
            raise InputError("freeze all leaves the backbone where it started: leave out interpolate")
        if self.ema == "instead":
            raise InputError(
                "ema instead exports the student's average and interpolate a student nearer to its start: give one of "
                "them, or ema beside"
            )
