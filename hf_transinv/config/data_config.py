"""Which pictures a run trains and is evaluated on, and how they are cropped."""

from dataclasses import dataclass

from hf_transinv.config.checks import at_least, check_choices, check_fold, choice
from hf_transinv.errors import InputError

FILTERS = ("bilinear", "bicubic")
_STORED = 1.15  # of image_size: crops of 76 % of the area and more are reduced, all others enlarged


@dataclass
class DataConfig:
    """The data.

    Attributes:
        dataset: Hub id, folder of images, table of image paths (.csv, .tsv, .jsonl, .parquet), parquet file, folder
            in Hub shape or saved by `datasets`, or the embedded digits/source or digits/target.
        dataset_config: configuration of a Hub dataset that has several.
        dataset_revision: branch, tag or commit of a Hub dataset.
        train_split: split to train on; slices such as train[:90%] work unless streaming.
        eval_split: split to evaluate on, once, at the end; default: test or validation, whichever the dataset has.
        validation_share: share of every class, in (0, 1), of the training split that is held out and measured while
            training; a dataset without a split to evaluate on is evaluated on it, too. The same images whatever the
            seed. 0: none.
        validation_fold: which part of that share is held out, from 0: with a share of 1/k the k runs of a
            cross-validation measure each image once.
        validation_split: split to measure on while training; give either this or validation_share.
        image_column: column with the images; default: the one column of that type.
        label_column: column with the labels; default: the one column of that type.
        streaming: read the training split as a stream instead of keeping it on the device.
        shuffle_buffer: rows in the shuffle buffer of a stream.
        image_size: side to which images are resized and cropped, in pixels; default: their own, if all have the same.
        on_bad_image: what to do with a broken image: raise, or skip it and list it in skipped_images.txt.
        label_noise: share of the training labels, in [0, 1), replaced by labels drawn uniformly from all classes: the
            same ones in every run, whatever its seed; not for streams.
        crop: ordinary augmentation: pad (shift by an eighth), resized (a random resized crop, of the whole picture
            where image_size is given) or none.
        crop_scale: crop resized: lowest and highest share of the picture's area; default: 0.35 1.
        crop_ratio: crop resized: lowest and highest width / height; default: 0.75 1.333.
        stored_size: crop resized: shorter side to which whole pictures are reduced before crops are taken from them,
            in pixels; default: 1.15 x image_size. Not of a stream, which takes crops as it decodes and keeps nothing.
        eval_crop_pct: share of the resized shorter side that the evaluation's central square has; timm's crop_pct.
        interpolation: of all resizing, antialiased: bilinear or bicubic.
        flip: mirror half of the training images.
    """

    dataset: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    validation_share: float = 0.0
    validation_fold: int = 0
    validation_split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    streaming: bool = False
    shuffle_buffer: int = 10_000
    image_size: int | None = None
    on_bad_image: str = choice("raise", ("raise", "skip"))
    label_noise: float = 0.0
    crop: str = choice("pad", ("pad", "resized", "none"))
    crop_scale: tuple[float, ...] = ()
    crop_ratio: tuple[float, ...] = ()
    stored_size: int | None = None
    eval_crop_pct: float = 1.0
    interpolation: str = choice("bilinear", FILTERS)
    flip: bool = True

    def __post_init__(self) -> None:
        check_choices(self)
        at_least("shuffle_buffer", self.shuffle_buffer, 1)
        if self.image_size is not None:
            at_least("image_size", self.image_size, 8)
        self._check_cuts()
        check_validation_share(self.validation_share, self.validation_fold, self.streaming)
        if self.validation_share and self.validation_split is not None:
            raise InputError(
                f"give validation_share {self.validation_share} (a part of the training split) or validation_split "
                f"{self.validation_split}, not both"
            )
        if not 0 <= self.label_noise < 1:
            raise InputError(f"label_noise must be in [0, 1), given {self.label_noise}")
        if self.label_noise and self.streaming:
            raise InputError(
                f"label_noise {self.label_noise} is drawn once for all training labels, and a stream never has all of "
                "them: leave out streaming or label_noise"
            )

    def _check_cuts(self) -> None:
        """Completes the stored size, and refuses what has no effect."""
        if self.crop == "resized":
            _check_range("crop_scale", self.crop_scale, 1)
            _check_range("crop_ratio", self.crop_ratio, 100)
        else:
            given = {"crop_scale": self.crop_scale, "crop_ratio": self.crop_ratio, "stored_size": self.stored_size}
            unused = [name for name, value in given.items() if value not in ((), None)]
            if unused:
                raise InputError(f"{unused[0]} belongs to --crop resized, and crop is {self.crop}: leave it out")
        check_crop_pct(self.eval_crop_pct)
        if self.image_size is None:
            self._refuse_without_size()
        elif self.streaming and self.stored_size is not None:
            raise InputError(
                f"stored_size {self.stored_size}: a stream takes crops from pictures as they are decoded, and stores "
                "none: leave out streaming or stored_size"
            )
        elif self.crop == "resized" and not self.streaming:
            self.stored_size = round(_STORED * self.image_size) if self.stored_size is None else self.stored_size
            at_least("stored_size", self.stored_size, self.image_size)

    def _refuse_without_size(self) -> None:
        """Without image_size no image is resized when it is read."""
        for name, is_given in (
            ("stored_size", self.stored_size is not None),
            ("eval_crop_pct", self.eval_crop_pct != 1),
            ("interpolation", self.interpolation != "bilinear" and self.crop != "resized"),
        ):
            if is_given:
                raise InputError(f"{name} is given and image_size is not, so no image is resized: give --image_size")


def _check_range(name: str, values: tuple[float, ...], most: float) -> None:
    if values and not (len(values) == 2 and 0 < values[0] <= values[1] <= most):
        raise InputError(f"{name} {' '.join(map(str, values))}: expected LOW HIGH, 0 < LOW <= HIGH <= {most}")


def check_crop_pct(share: float) -> None:
    """Raises InputError for a share of the resized shorter side that is not in (0, 1]."""
    if not 0 < share <= 1:
        raise InputError(f"eval_crop_pct must be in (0, 1], given {share}")


def check_validation_share(share: float, fold: int, streaming: bool) -> None:
    """Raises InputError for a share that cannot be held out.

    Args:
        share: of every class.
        fold: which part of that share.
        streaming: whether the training split is a stream.
    """
    if not 0 <= share < 1:
        raise InputError(f"validation_share must be in [0, 1), given {share}")
    if share:
        check_fold(share, fold)
    elif fold:
        raise InputError(f"validation_fold {fold} needs a share to be a part of: give --validation_share 0.2")
    if share and streaming:
        raise InputError(
            f"validation_share {share} needs to know every label beforehand, which a stream does not: leave out "
            "streaming, or give a split as eval_split or validation_split"
        )
