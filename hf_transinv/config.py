"""The configuration of a run: small dataclasses, one per concern. `experiment.arguments.parse` fills them.

Every field is a flag of the same name and a key of the YAML, which is flat. `AugmentationConfig`, `PrimitiveConfig`
and `TransInvConfig` are defined next to what they configure.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hf_transinv.errors import InputError


@dataclass
class DataConfig:
    """The data.

    Attributes:
        dataset: Hub id, folder of images, table of image paths (.csv, .tsv, .jsonl, .parquet), parquet file, folder
            in Hub shape or saved by `datasets`, or the embedded digits/source or digits/target.
        dataset_config: configuration of a Hub dataset that has several.
        dataset_revision: branch, tag or commit of a Hub dataset.
        train_split: split to train on; slices such as train[:90%] work unless streaming.
        eval_split: split to evaluate on; default: test or validation, whichever the dataset has.
        validation_share: share of every class, in (0, 1), of the training split that is held out and evaluated on, for
            a dataset without a split for that; the same images whatever the seed. 0: none.
        image_column: column with the images; default: the one column of that type.
        label_column: column with the labels; default: the one column of that type.
        streaming: read the training split as a stream instead of keeping it on the device.
        shuffle_buffer: rows in the shuffle buffer of a stream.
        image_size: side to which images are resized and cropped, in pixels; default: their own, if all have the same.
        on_bad_image: what to do with a broken image: raise, or skip it and list it in skipped_images.txt.
        label_noise: share of the training labels, in [0, 1), replaced by labels drawn uniformly from all classes: the
            same ones in every run, whatever its seed; not for streams.
        crop: ordinary augmentation: pad (shift by an eighth), resized (a random resized crop) or none.
        flip: mirror half of the training images.
    """

    dataset: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    validation_share: float = 0.0
    image_column: str | None = None
    label_column: str | None = None
    streaming: bool = False
    shuffle_buffer: int = 10_000
    image_size: int | None = None
    on_bad_image: str = "raise"
    label_noise: float = 0.0
    crop: str = "pad"
    flip: bool = True

    def __post_init__(self) -> None:
        _one_of("on_bad_image", self.on_bad_image, ("raise", "skip"))
        _one_of("crop", self.crop, ("pad", "resized", "none"))
        _at_least("shuffle_buffer", self.shuffle_buffer, 1)
        if self.image_size is not None:
            _at_least("image_size", self.image_size, 8)
        check_validation_share(self.validation_share, self.eval_split, self.streaming)
        if not 0 <= self.label_noise < 1:
            raise InputError(f"label_noise must be in [0, 1), given {self.label_noise}")
        if self.label_noise and self.streaming:
            raise InputError(
                f"label_noise {self.label_noise} is drawn once for all training labels, and a stream never has all of "
                "them: leave out streaming or label_noise"
            )


@dataclass
class StudentConfig:
    """The student and its teachers.

    Attributes:
        student: any timm architecture, Hub id or local folder; default with student_init teacher:K: that teacher's.
        student_init: scratch, pretrained, or teacher:K (the weights of teacher K, counted from 1, with a new head).
        teachers: Hub ids, local folders, timm names or ema (the student's own average), any number, in any mix.
        ema_decay: of the ema teacher.
        teacher_device: device of the frozen teachers; default: the student's; cpu: the host's, when they do not fit
            beside the student (slow). The ema teacher stays with the student.
    """

    student: str | None = None
    student_init: str = "scratch"
    teachers: tuple[str, ...] = ()
    ema_decay: float = 0.999
    teacher_device: str | None = None

    def __post_init__(self) -> None:
        start, _, index = self.student_init.partition(":")
        if start == "teacher":
            if index not in map(str, range(1, len(self.teachers) + 1)):
                raise InputError(
                    f"student_init {self.student_init!r}: expected teacher:K with K from 1 to the number of teachers "
                    f"({len(self.teachers)})"
                )
            if self.teachers[int(index) - 1] == "ema":
                raise InputError(f"student_init {self.student_init!r}: that teacher is the student's own average")
            if self.student is not None:
                raise InputError(
                    "give student or student_init teacher:K, not both: the teacher brings its architecture"
                )
        elif self.student_init not in ("scratch", "pretrained"):
            raise InputError(f"student_init {self.student_init!r}: expected scratch, pretrained or teacher:K")
        elif self.student is None:
            raise InputError("no student given: name a timm architecture, e.g. --student wrn16_2_cifar")
        if self.teacher_device is not None:
            _one_of("teacher_device", self.teacher_device, ("cpu",))
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must be in [0, 1), given {self.ema_decay}")


@dataclass
class TrainConfig:
    """The training loop.

    Attributes:
        num_train_epochs: passes of the student over the training split; give either this or max_steps.
        max_steps: student steps.
        batch_size: images per step, over all processes and micro-batches.
        gradient_accumulation_steps: micro-batches into which a process splits its share of the batch.
        optimizer: of the student, by timm's name; sgd is Nesterov's.
        learning_rate: of the student, at its peak.
        momentum: of the student's optimizer.
        weight_decay: of the student, not on BatchNorm and biases.
        lr_scheduler: of the student, by timm's name.
        warmup_ratio: share of the steps, in [0, 1), in which the learning rate rises.
        max_grad_norm: clip the student's gradient at this norm; 0: no clipping.
        label_smoothing: of the student's loss.
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
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_scheduler: str = "cosine"
    warmup_ratio: float = 0.05
    max_grad_norm: float = 5.0
    label_smoothing: float = 0.0
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
        if (self.num_train_epochs is None) == (self.max_steps is None):
            raise InputError(
                f"give num_train_epochs or max_steps, one of the two "
                f"(given {self.num_train_epochs} and {self.max_steps})"
            )
        for name in ("batch_size", "gradient_accumulation_steps", "logging_steps", "save_total_limit", "ddp_timeout"):
            _at_least(name, getattr(self, name), 1)
        _at_least("seed", self.seed, 0)
        for name in ("num_train_epochs", "max_steps", "save_steps"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive, given {getattr(self, name)}")
        for name in ("weight_decay", "max_grad_norm", "augment_weight_decay", "warmup_ratio", "momentum"):
            _at_least(name, getattr(self, name), 0)
        for name in ("learning_rate", "augment_learning_rate", "selection_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive, given {getattr(self, name)}")
        if self.warmup_ratio >= 1 or not 0 <= self.label_smoothing < 1:
            raise InputError("warmup_ratio and label_smoothing must be in [0, 1)")


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
        _one_of("report_to", self.report_to, ("tensorboard", "wandb", "trackio", "none"))
        for baseline in self.baselines:
            _one_of("baselines", baseline, ("plain", "crop_flip"))
        if not self.eval_severities or not set(self.eval_severities) <= {1, 2, 3, 4, 5}:
            raise InputError(f"eval_severities {list(self.eval_severities)}: expected some of 1 to 5")
        _at_least("eval_batch_size", self.eval_batch_size, 1)
        if self.push_every is not None:
            _at_least("push_every", self.push_every, 1)
        if self.push_to_hub is None and (self.private or self.hub_revision or self.push_every):
            raise InputError("private, hub_revision and push_every are for push_to_hub USER/NAME: give that as well")


def check_validation_share(share: float, eval_split: str | None, streaming: bool) -> None:
    """Raises InputError for a share that cannot be held out.

    Args:
        share: of every class.
        eval_split: the split that the user named, if any.
        streaming: whether the training split is a stream.
    """
    if not 0 <= share < 1:
        raise InputError(f"validation_share must be in [0, 1), given {share}")
    if share and eval_split is not None:
        raise InputError(
            f"give validation_share {share} (a part of the training split is evaluated on) or eval_split "
            f"{eval_split}, not both"
        )
    if share and streaming:
        raise InputError(
            f"validation_share {share} needs to know every label beforehand, which a stream does not: leave out "
            "streaming, or give a split as eval_split"
        )


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} {value!r} is not one of {', '.join(known)}")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:  # true for NaN as well
        raise InputError(f"{name} must be at least {least}, given {value}")


def as_dict(*groups: Any) -> dict[str, Any]:
    """All fields of all groups as one flat dictionary of values that YAML and JSON can hold."""
    flat: dict[str, Any] = {}
    for group in groups:
        for name, value in asdict(group).items():
            flat |= value if isinstance(value, dict) else {name: list(value) if isinstance(value, tuple) else value}
    return flat
