"""A learned augmentation on disk: its weights (phi, logits of p, q and r) and a config.json that people can read."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.errors import InputError
from hf_transinv.files import atomic_write, plain_state, read_json, write_json
from hf_transinv.models.param_budget import check_sizes, no_larger_than, stored_elements


def save_augmentation(panel: AugmentationPanel, teacher_names: Sequence[str], folder: Path) -> Path:
    """Write a learned augmentation: augmentation.safetensors (phi, logits of p, q, r) and config.json, readable."""
    save_weights(panel, folder)
    p, q, r, _ = (values.tolist() for values in panel.selection())
    learned = {"teachers": list(teacher_names), "p": p, "q": q, "r": r}
    write_json(folder / "config.json", {"augmentation": asdict(panel.config), **learned})
    return folder


def save_weights(augmentation: nn.Module, folder: Path) -> None:
    """Write what any learned augmentation is made of: augmentation.safetensors.

    Raises:
        InputError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(folder / "augmentation.safetensors") as partial:
            save_file(plain_state(augmentation), partial)
    except SafetensorError as error:
        raise InputError(f"{folder} could not be written ({error}). Is the disk full?") from error


def load_augmentation(folder: str | Path) -> AugmentationPanel:
    """The learned augmentation of a finished run.

    Raises:
        InputError: the folder holds none, or a damaged one.
    """
    folder = Path(folder)
    try:
        saved = read_json(folder / "config.json")
        fields = saved["augmentation"]
        config = AugmentationConfig(
            **{
                **fields,
                "primitives": tuple(fields["primitives"]),
                "primitive": PrimitiveConfig(**fields["primitive"]),
            }
        )
        check_sizes(fields["primitive"], str(folder))
        with no_larger_than(stored_elements(folder), str(folder)):
            panel = AugmentationPanel(len(saved["teachers"]), config)
        panel.load_state_dict(load_file(folder / "augmentation.safetensors"))
    except (OSError, LookupError, TypeError, AttributeError, RuntimeError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} holds no learned augmentation that can be loaded: {error}") from error
    return panel
