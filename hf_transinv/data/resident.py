"""A whole split decoded once into one uint8 tensor, and the endless shuffled batches drawn from it.

For small images this is by far the fastest way: CIFAR's 50,000 images take 154 MB, and a batch is one gather on the
device. Whole photographs lie one behind another in one tensor, and a batch of them is a view of it.
"""

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from hf_transinv.data.balance import BalancedOrder
from hf_transinv.data.batches import check_same_feed, permutation, share_of_batch
from hf_transinv.data.classes import check_label
from hf_transinv.data.image_decoder import ImageDecoder, none_decoded
from hf_transinv.data.pictures import Pictures
from hf_transinv.data.sources import Source
from hf_transinv.data.split_decoding import decode_pictures, decode_squares
from hf_transinv.data.transfer import send
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Images = TypeVar("Images", Tensor, Pictures)
_LABEL_NOISE_SEED = 12345  # fixed: another seed would make another dataset


@dataclass(frozen=True)
class ResidentSplit(Generic[Images]):
    """A decoded split.

    Attributes:
        images: uint8 [N, 3, H, W], H = W; or N whole pictures, where `stored_size` was given.
        labels: int64 [N], on the same device.
        label_names: the classes, in the order of their numbers.
        skipped: images left out because they could not be decoded: where they are and what is wrong.
        digests: of every image's pixels, uint64 [N], to recognise the same image in two splits; None: not computed.
        files: of every image's encoded file, uint64 [N], for the same where the splits are cut differently; None: not
            computed.
    """

    images: Images
    labels: Tensor
    label_names: list[str]
    skipped: tuple[str, ...] = ()
    digests: np.ndarray | None = field(default=None, compare=False)
    files: np.ndarray | None = field(default=None, compare=False)

    @classmethod
    def load(
        cls,
        source: Source,
        *,
        image_size: int | None = None,
        on_bad_image: str = "raise",
        device: torch.device | str = "cpu",
        show_progress: bool = True,
        crop_pct: float = 1.0,
        interpolation: str = "bilinear",
        stored_size: int | None = None,
        with_files: bool = False,
    ) -> "ResidentSplit":
        """Decodes all rows of a source.

        Args:
            source: opened without streaming.
            image_size: side in pixels to which all images are brought (shorter side resized, centre cut out); None
                keeps them as they are, if all are squares of one size.
            on_bad_image: "raise": an image that cannot be decoded is an error; "skip": it is left out and counted.
            device: of the tensors.
            show_progress: whether to show a progress bar.
            crop_pct: share of the resized shorter side that the square cut out has, in (0, 1].
            interpolation: of resizing: "bilinear" or "bicubic".
            stored_size: keep whole pictures, of this shorter side at most, in pixels, from which crops are resized to
                `image_size`, unless all are squares of that size; None: squares are cut out.
            with_files: whether to compute `files`; always where pictures are kept.

        Raises:
            InputError: a label is missing or beyond the names, an image cannot be decoded, or sizes differ.
        """
        if source.streaming:
            raise InputError(f"{source.name} was opened as a stream. Open it without streaming to hold all of it.")
        table = cast("Dataset", source.rows)  # where it is not a stream
        labels = torch.tensor(_checked_labels(source, table), dtype=torch.int64)
        with closing(table.select_columns("image").__iter__()) as rows:
            cells = (row["image"] for row in rows)
            decoder = ImageDecoder.open(
                source,
                cells,
                image_size,
                on_bad_image,
                crop_pct=crop_pct,
                interpolation=interpolation,
                stored_size=stored_size,
            )
        if decoder.stored_size is None:
            decoded = decode_squares(source, table, decoder, with_files, show_progress)
        else:
            decoded = decode_pictures(source, table, decoder, device, show_progress)
            with_files = True
        if not len(decoded.images):
            raise none_decoded(source)
        skipped = tuple(sorted(decoder.skipped.values()))
        images: Any = decoded.images
        return cls(
            images.to(device),
            labels[decoded.good].to(device),
            source.label_names,
            skipped,
            None if isinstance(images, Pictures) else decoded.digests,
            decoded.files if with_files else None,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_skipped(self) -> int:
        return len(self.skipped)

    def class_counts(self) -> list[int]:
        """Images of each class."""
        return torch.bincount(self.labels, minlength=len(self.label_names)).tolist()

    def take(self, indices: Tensor) -> tuple[Images, Tensor]:
        """Gathers rows.

        Args:
            indices: int64 [B], on any device; of pictures on the host.

        Returns:
            images uint8 [B, 3, H, W], or pictures, and labels int64 [B], on the split's device.
        """
        if isinstance(self.images, Pictures):
            return self.images[indices], self.labels[send(indices, self.labels.device)]
        indices = send(indices, self.images.device)
        return self.images[indices], self.labels[indices]

    def with_label_noise(self, share: float) -> "ResidentSplit":
        """The same images, some of their labels replaced by labels drawn uniformly from all classes.

        Each label is replaced with the same probability, independently of the others, as in "Understanding Deep
        Learning Requires Rethinking Generalization" (Zhang et al., ICLR 2017) and its code, which section 4.3.2 of
        Augmentation Invariant Training follows. Of C classes, one in C of the replaced labels is right by chance.

        The noise depends on the number of rows and of classes alone, not on the run's seed or number of processes.
        Labels that a smaller share replaces are replaced by a larger share too, with the same labels.

        Args:
            share: probability that a label is replaced, in [0, 1); 0 returns this split itself.

        Raises:
            InputError: a share outside [0, 1).
        """
        if not 0 <= share < 1:
            raise InputError(f"label_noise is the share of labels that are replaced, in [0, 1); given {share}")
        if share == 0:
            return self
        generator = torch.Generator().manual_seed(_LABEL_NOISE_SEED)
        is_replaced = torch.rand(len(self), generator=generator, dtype=torch.float64) < share
        drawn = torch.randint(len(self.label_names), (len(self),), generator=generator)
        labels = torch.where(is_replaced.to(self.labels.device), drawn.to(self.labels.device), self.labels)
        return replace(self, labels=labels)


class ResidentFeed:
    """Endless shuffled batches of a resident split; each process gets its share of every batch.

    The order of epoch e is a function of (seed, e) alone. Each epoch has floor(N / batch_size) whole batches. The rows
    left over differ from epoch to epoch.

    Args:
        split: the data.
        batch_size: images in a batch of all processes together.
        seed: of the order, from 0 on.
        rank: which process this is.
        world: number of processes.
        balanced: whether every class occurs equally often; rows of small classes then come again within an epoch.

    Raises:
        InputError: the batch is larger than the split, or cannot be shared equally, or a class has no row to balance.
    """

    def __init__(
        self,
        split: ResidentSplit,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        balanced: bool = False,
    ) -> None:
        self.share = share_of_batch(batch_size, rank, world)
        if batch_size > len(split):
            raise InputError(
                f"The batch of {batch_size} images is larger than the data ({len(split)} images). Give --batch_size "
                f"{len(split)} or less."
            )
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._balanced = None
        if balanced:
            epoch_rows = self.batches_per_epoch * batch_size
            self._balanced = BalancedOrder(split.labels, len(split.label_names), epoch_rows, seed)
        self.order = self._order_of(0)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.split) // self.batch_size

    @property
    def num_skipped(self) -> int:
        return self.split.num_skipped

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.split.skipped

    def wait(self) -> None:
        """Does nothing: all batches are ready."""

    def next_batch(self) -> tuple[Tensor | Pictures, Tensor]:
        """Returns this process's share: images uint8 [B / world, 3, H, W] or pictures, labels int64 [B / world]."""
        start = self.position * self.batch_size
        batch = self.split.take(self.order[start + self.share.start : start + self.share.stop])
        self._go_to(self.epoch, self.position + 1)
        return batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where a feed of the same seed and batch size stood.

        Raises:
            InputError: the seed or the batch size is another.
        """
        check_same_feed(state, self.state_dict())
        self._go_to(state["epoch"], state["position"])

    def close(self) -> None:
        """Does nothing: no file or thread is open."""

    def _go_to(self, epoch: int, position: int) -> None:
        if position == self.batches_per_epoch:
            epoch, position = epoch + 1, 0
        if epoch != self.epoch:
            self.order = self._order_of(epoch)
        self.epoch, self.position = epoch, position

    def _order_of(self, epoch: int) -> Tensor:
        return self._balanced(epoch) if self._balanced else permutation(len(self.split), self.seed, epoch)


def _checked_labels(source: Source, table: "Dataset") -> list[int]:
    labels = table.select_columns("label").with_format("arrow")[:]["label"].to_pylist()
    for row, label in enumerate(labels):
        if label is None or not 0 <= label < len(source.label_names):
            check_label(label, source.label_names, source.where(row, table[row]["image"]))
    return labels
