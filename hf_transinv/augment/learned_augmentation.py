"""A learned augmentation on its own, for any training loop.

    x -> b a_i(x, z) + (1 - b) x,    k ~ Categorical(r),  b ~ Bernoulli(q_k),  i ~ Categorical(p_k),  z ~ N(0, I)

for each image, as in a student turn of TransInv (`AugmentationPanel.draw_samples`). p, q, r and phi are the learned
ones; the random numbers come from a generator of its own.

    augment = LearnedAugmentation.from_pretrained("user/student", seed=0)
    images = augment(images)                          # [B, 3, H, W], float in [0, 1] or uint8; or one image
    v2.Compose([v2.RandomCrop(32, 4), augment, v2.ToDtype(torch.float32, scale=True)])
    dataset.set_transform(augment)                    # its column "image"

It belongs before the normalisation, as p, q and r were learned on pixels in [0, 1].

`from_pretrained`, `save_pretrained` and `push_to_hub` take the arguments of huggingface_hub's `ModelHubMixin` that
apply here. The mixin itself is not inherited: it reads and writes a config.json at the root of a repository, where the
student has its own.
"""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import get_worker_info
from torchvision import tv_tensors

from hf_transinv.augment.learned import AugmentationPanel, Selection
from hf_transinv.augment.places import find_augmentation, push_augmentation, refuse_foreign
from hf_transinv.augment.saving import CONFIG, WEIGHTS, load_augmentation, read_config, save_augmentation
from hf_transinv.errors import InputError
from hf_transinv.record import published

# Resampling with negative lobes (bicubic, Lanczos) overshoots by up to this; normalised images exceed it by far.
_OVERSHOOT = 0.25
_EXPECTED = (
    "expected images [B, 3, H, W] or one image [3, H, W], float in [0, 1] or uint8; a PIL image; a list of images; or "
    "columns of a data set"
)


class LearnedAugmentation(nn.Module):
    """Deforms images as they were deformed for the student of a run of TransInv.

    No gradient is recorded, the parameters are frozen, and `train()` and `eval()` make no difference. The generator is
    on the CPU, so the same seed gives the same draws on every device. In a DataLoader's worker the seed is mixed with
    the worker's, so that draws differ between workers and between epochs. A copy continues as the original would.

    Args:
        panel: of a TransInv objective, or from `load_augmentation`; it is copied.
        teachers: names of the teachers of the run.
        seed: of the generator; None for one drawn from torch's global generator.
        image_column: column with the images in a batch of `datasets`.

    Attributes:
        panel: the augmentation models and the selection among them; its `forward` records gradients.
        teachers: names of the teachers, in the order of p, q and r.
        image_column: column with the images in a batch of `datasets`.
        generator: the only source of randomness.
    """

    def __init__(
        self,
        panel: AugmentationPanel,
        teachers: Sequence[str],
        *,
        seed: int | None = None,
        image_column: str = "image",
    ) -> None:
        super().__init__()
        if len(teachers) != len(panel.models):
            raise InputError(f"{len(panel.models)} augmentation models need as many teachers, given {list(teachers)}")
        self.panel = copy.deepcopy(panel).requires_grad_(False)
        self.teachers, self.image_column = tuple(teachers), image_column
        self.generator = torch.Generator()
        self.seed(int(torch.randint(2**62, ())) if seed is None else seed)
        self.eval()
        if not all(values.isfinite().all() for values in self.selection()[:3]):
            raise InputError("p, q or r of the augmentation is not a number; take one of a run that did not diverge")

    def seed(self, seed: int) -> Self:
        """Restart the draws from a seed."""
        self.generator.manual_seed(seed)
        self._worker_seed: int | None = None
        return self

    def selection(self) -> Selection:
        """The learned p [L, K], q [L] and r [L], and the multipliers and excess [L, K], on the CPU."""
        with torch.no_grad():
            return Selection(*(values.float().cpu() for values in self.panel.selection()))

    # Deforming

    @torch.no_grad()
    def forward(self, images: Any, *others: Any) -> Any:
        """Deform images, each by its own draw.

        Args:
            images: a batch [B, 3, H, W] or one image [3, H, W], float in [0, 1] or uint8; an RGB image of PIL; a list
                of these; or a mapping of columns, as `datasets` gives it to a transform, with these in `image_column`.
            others: labels, boxes and so on; returned unchanged, as torchvision's transforms do.

        Returns:
            The deformed images, of the same type, shape, dtype and device; with `others`, a tuple. An image that is
            not deformed keeps every bit. uint8 is rounded.

        Raises:
            InputError: the images are none of these.
        """
        self._follow_worker()
        deformed = self._deform(images)
        return (deformed, *others) if others else deformed

    def _deform(self, images: Any) -> Any:
        if isinstance(images, Mapping):
            if self.image_column not in images:
                raise InputError(
                    f"There is no column {self.image_column!r} among {', '.join(map(str, images))}; give the one with "
                    "the images: image_column=NAME"
                )
            return {**images, self.image_column: self._deform(images[self.image_column])}
        if isinstance(images, list):
            return [self._deform(image) for image in images]
        if isinstance(images, Image.Image):
            return self._deform_pil(images)
        if not isinstance(images, Tensor) or (
            isinstance(images, tv_tensors.TVTensor) and not isinstance(images, tv_tensors.Image)
        ):
            raise InputError(f"An object of type {type(images).__name__} was given to be deformed; {_EXPECTED}")
        deformed = self._deform_tensor(images.as_subclass(Tensor))
        return tv_tensors.wrap(deformed, like=images) if isinstance(images, tv_tensors.Image) else deformed

    def _deform_pil(self, image: Image.Image) -> Image.Image:
        if image.mode != "RGB":
            raise InputError(f"A PIL image of mode {image.mode} was given; expected RGB: image.convert('RGB')")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        deformed = self._deform_tensor(pixels.to(self.panel.logits_r.device))
        return Image.fromarray(deformed.permute(1, 2, 0).cpu().numpy())

    def _deform_tensor(self, images: Tensor) -> Tensor:
        self._check(images)
        if images.ndim == 3:
            return self._deform_tensor(images.unsqueeze(0)).squeeze(0)
        if not len(images):
            return images.clone()
        pixels = images / 255 if images.dtype == torch.uint8 else images.float().clamp(0, 1)
        draws = self.panel.draw_samples(images.shape, images.device, self.generator, self.selection())
        deformed, _ = self.panel(pixels, draws)
        if images.dtype == torch.uint8:
            deformed = deformed.mul(255).round()
        changed = (draws.choice < self.panel.num_primitives).view(-1, 1, 1, 1).to(images.device)
        return torch.where(changed, deformed.to(images.dtype), images)

    def _check(self, images: Tensor) -> None:
        shape, home = list(images.shape), self.panel.logits_r
        if images.ndim not in (3, 4) or images.shape[-3] != 3:
            raise InputError(f"A tensor of shape {shape} was given; {_EXPECTED}. Grey images: image.expand(3, -1, -1)")
        if not images.is_floating_point() and images.dtype != torch.uint8:
            raise InputError(f"A tensor of {images.dtype} was given; {_EXPECTED}")
        if images.device != home.device or home.dtype != torch.float32:
            raise InputError(
                f"Images on {images.device} were given to an augmentation of {home.dtype} on {home.device}; expected "
                f"one device, and parameters in float32: augment.to(images.device, torch.float32)"
            )
        if images.is_floating_point() and images.numel():
            low, high = (value.item() for value in images.aminmax())
            if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # NaN, too
                raise InputError(
                    f"Pixels from {low:.4g} to {high:.4g} were given; expected floats in [0, 1]. Divide by 255, or "
                    "deform images before they are normalised"
                )

    def _follow_worker(self) -> None:
        """In a DataLoader's worker, which has a copy: mix the worker's seed in, once."""
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker_seed:
            entropy = (self.generator.initial_seed(), worker.seed)
            (mixed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
            self.generator.manual_seed(int(mixed))
            self._worker_seed = worker.seed

    # Loading and saving

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        seed: int | None = None,
        image_column: str = "image",
    ) -> Self:
        """The augmentation that a run learned.

        Args:
            pretrained_model_name_or_path: a run's output folder, its augmentation/ or its student/; or USER/NAME of a
                student, or of an augmentation, on the Hub. Only the augmentation's two files are downloaded.
            force_download: whether to download files that are in the cache.
            token: instead of the environment's or that of `hf auth login`; False for none.
            cache_dir: instead of the Hub client's.
            local_files_only: whether to look only in the cache.
            revision: branch, tag or commit on the Hub.
            seed: as for the class.
            image_column: as for the class.

        Raises:
            InputError: there is no augmentation, it is damaged, or the Hub cannot be reached.
        """
        options = {"token": token, "cache_dir": cache_dir, "force_download": force_download}
        options |= {"local_files_only": local_files_only}
        folder = find_augmentation(pretrained_model_name_or_path, revision, **options)
        panel, (_, teachers) = load_augmentation(folder), read_config(folder)
        return cls(panel, teachers, seed=seed, image_column=image_column)

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **push: Any
    ) -> str | None:
        """Write config.json and augmentation.safetensors, the files of a run's augmentation/.

        Args:
            save_directory: made if it does not exist.
            repo_id: for `push_to_hub`; None for the folder's name.
            push_to_hub: whether to push it as well.
            push: arguments of `push_to_hub`.

        Returns:
            The URL of the commit, if it was pushed, else None.

        Raises:
            InputError: the folder has a config.json of something else, the disk is full, or the push failed.
        """
        folder = Path(save_directory)
        refuse_foreign(folder)
        save_augmentation(self.panel, self.teachers, folder)
        return self.push_to_hub(repo_id or folder.name, **push) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push a learned augmentation",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Push it to augmentation/ of a repository, its own or a student's; other files there are left unchanged.

        Teachers that are local folders are named by the last part of their path.

        Args:
            repo_id: USER/NAME; created if it does not exist.
            commit_message: first line of the commit message.
            private: whether a new repository is private; None for the account's default.
            token: instead of the environment's or that of `hf auth login`.
            branch: created from main if it does not exist; None for main.
            create_pr: whether to open a pull request.

        Returns:
            The URL of the commit.

        Raises:
            InputError: the Hub refused or could not be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            save_augmentation(self.panel, published(self.teachers), Path(folder))
            files = {name: (Path(folder) / name).read_bytes() for name in (CONFIG, WEIGHTS)}
        about: dict[str, Any] = {"commit_message": commit_message, "private": private, "token": token}
        return push_augmentation(files, repo_id, branch=branch, create_pr=create_pr, **about)

    # Copies and text

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "generator": (self.generator.initial_seed(), self.generator.get_state())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        seed, drawn = state["generator"]
        generator = torch.Generator().manual_seed(seed)
        super().__setstate__({**state, "generator": generator.set_state(drawn)})

    def __repr__(self) -> str:
        p, q, r, *_ = self.selection()
        most = [self.panel.config.primitives[index] for index in p.argmax(1)]
        lines = [
            f"  {name}: r {r[k]:.2f}, q {q[k]:.2f}, most often {most[k]} (p {p[k].max():.2f})"
            for k, name in enumerate(self.teachers)
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])
