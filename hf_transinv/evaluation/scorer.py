"""The loop of the evaluation: every batch of a split, under every condition, through one model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from hf_transinv.errors import InputError
from hf_transinv.evaluation.conditions import CLEAN, Augmented, Condition
from hf_transinv.evaluation.error_pictures import ErrorPictures
from hf_transinv.evaluation.scores import COLUMNS, Answer, image_scores
from hf_transinv.evaluation.splits import Batch, Split
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.features import inputs_of, last_layer

if TYPE_CHECKING:
    from accelerate import Accelerator


class Scorer:
    """Computes the scores of every image of a split; the same on all processes.

    Args:
        model: unwrapped, on its device, in eval mode.
        columns: of the logits, to choose among, int64 [C]; None for all.
        accelerator: shares the batches among its processes and sets the precision; None for this process alone.
        batch_size: images per batch.
        seed: of the corruptions and augmentations.
        frost_folder: see `evaluate`.
        error_pictures: see `evaluate`.
        progress: a bar that advances by an image per condition, those of the other processes included.
    """

    def __init__(
        self,
        model: Classifier,
        columns: Tensor | None,
        accelerator: "Accelerator | None",
        *,
        batch_size: int,
        seed: int,
        frost_folder: str | None,
        error_pictures: ErrorPictures | None,
        progress: tqdm,
    ) -> None:
        self.model, self.accelerator, self.progress = model, accelerator, progress
        self.batch_size, self.seed, self.frost_folder = batch_size, seed, frost_folder
        self.error_pictures = error_pictures
        self.device = accelerator.device if accelerator else next(model.parameters()).device
        self.columns = None if columns is None else columns.to(self.device)
        self.last_layer = last_layer(model)
        self.rank: int = accelerator.process_index if accelerator else 0
        self.world: int = accelerator.num_processes if accelerator else 1

    def score(
        self, split: Split, conditions: Sequence[Condition | Augmented], *, are_corrupted: bool = False
    ) -> tuple[dict[Condition | Augmented, Tensor], int]:
        """Classify a split under each condition.

        Args:
            split: images and labels.
            conditions: to apply to the images; `CLEAN` comes before any augmentation.
            are_corrupted: whether the images are already in the one condition, and are classified as they are.

        Returns:
            The scores of each condition, float32 [N, 9], on the CPU, in the order of the images (see
            evaluation.scores); and the side of the images in pixels.

        Raises:
            InputError: the split is empty.
        """
        blocks: list[tuple[int, Tensor]] = []
        side = 0
        for batch in split.batches(self.batch_size, self.rank, self.world):
            side = batch.images.shape[-1]
            scores = self._score_batch(batch, conditions, are_corrupted, self._num_shared(split, batch.number))
            if self.error_pictures is not None and conditions[0] == CLEAN:
                self.error_pictures.offer(batch, scores[0])
            blocks.append((batch.number, scores))
        gathered, side = self._gather(blocks, len(conditions), side)
        return dict(zip(conditions, gathered, strict=True)), side

    def _num_shared(self, split: Split, number: int) -> int:
        """Images of the batches that all processes have at a time, this one with a number among them."""
        most = self.world * self.batch_size
        start = number // self.world * most
        return most if split.num_images is None else min(most, split.num_images - start)

    def _score_batch(
        self, batch: Batch, conditions: Sequence[Condition | Augmented], are_corrupted: bool, num_shared: int
    ) -> Tensor:
        """Scores [conditions, B, 9], on the CPU, with one wait for the device per batch."""
        pixels = batch.images.to(self.device).float() / 255
        labels = batch.labels.to(self.device)
        scores, original = [], None
        for condition in conditions:
            self.progress.set_description(f"evaluate {condition}", refresh=False)
            if are_corrupted:
                images = pixels
            elif isinstance(condition, Augmented):
                images = condition.apply(pixels, self.seed, batch.number * self.batch_size)
            else:
                images = condition.apply(pixels, self.seed, batch.number, self.frost_folder)
            answer = self._answer(images)
            original = answer if condition == CLEAN else original
            scores.append(image_scores(answer, labels, original if isinstance(condition, Augmented) else None))
            self.progress.update(num_shared)
        return torch.stack(scores).cpu()

    def _answer(self, images: Tensor) -> Answer:
        autocast: AbstractContextManager[None] = self.accelerator.autocast() if self.accelerator else nullcontext()
        nothing: list[Tensor] = []
        entering = nullcontext(nothing) if self.last_layer is None else inputs_of(self.last_layer)
        with autocast, entering as entered:
            logits = self.model(images.contiguous(memory_format=torch.channels_last))
        features = entered[0].flatten(1) if entered else None
        return Answer(logits if self.columns is None else logits[:, self.columns], features)

    def _gather(self, blocks: list[tuple[int, Tensor]], num_conditions: int, side: int) -> tuple[Tensor, int]:
        """Gather (batch number, scores [conditions, B, 9]) of all processes: [conditions, N, 9], and the side."""
        num_batches = blocks[-1][0] + 1 if blocks else 0
        if self.accelerator is not None and self.world > 1:
            known = torch.tensor([[num_batches, side]], device=self.device)
            num_batches, side = self.accelerator.gather(known).amax(dim=0).tolist()
        sizes = torch.zeros(num_batches, dtype=torch.int64)  # may differ, as images can be left out
        for number, block in blocks:
            sizes[number] = block.shape[1]
        sizes = self._sum(sizes)
        if not sizes.sum():
            raise InputError("The split to evaluate on is empty: give one with at least one image.")
        ends = sizes.cumsum(0)
        scores = torch.zeros(num_conditions, int(ends[-1]), len(COLUMNS))
        for number, block in blocks:
            end = int(ends[number])
            scores[:, end - block.shape[1] : end] = block
        return self._sum(scores), side

    def _sum(self, own: Tensor) -> Tensor:
        """The sum over all processes. It is exact, as entries of other processes are zero here."""
        if self.accelerator is None or self.world == 1:
            return own
        return self.accelerator.reduce(own.to(self.device), reduction="sum").cpu()
