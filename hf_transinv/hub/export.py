"""Export a student in timm's Hub layout, or, for networks of transformers, in that library's.

    config.json        architecture, label names, mean, std and input size; the block `hf_transinv` marks our exports,
                       and says how the evaluation images were cut, and which corruptions the training imitated
    model.safetensors  the weights, contiguous, on the CPU
    README.md          the card, if one is given
    figures/           the pictures that it shows, if there are any

The folder is written under another name and then renamed, so it is there whole or not at all.
"""

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.errors import InputError
from hf_transinv.files import put_in_place
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.exported import image_processor_for, timm_preprocessing

_MARK = "hf_transinv"


def export_classifier(
    classifier: Classifier,
    folder: str | Path,
    *,
    card: str | None = None,
    figures: Sequence[Path] = (),
    tag: str = "transinv",
    extra: dict[str, Any] | None = None,
    image_size: int | None = None,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
) -> Path:
    """Write a classifier so that timm or transformers loads it.

    Loaded there, it has bitwise the same logits, and images are prepared as in this library's evaluation.

    Args:
        classifier: on any device and in any memory format; not changed.
        folder: an older export of ours there is replaced.
        card: content of README.md.
        figures: files that the card shows, each as figures/NAME.
        tag: name of the weights, as in timm's "resnet18.TAG".
        extra: JSON values for the `hf_transinv` block of config.json.
        image_size: side of the evaluation images in pixels, before the network resizes them; None: the network's
            input size.
        crop_pct: share of the resized shorter side that the evaluation images have, in (0, 1].
        interpolation: by which the shorter side was resized.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something other than an export of ours, or neither library's configuration can
            express the preprocessing of `classifier`.
    """
    folder = Path(folder)
    _refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir()
    try:
        network = copy.deepcopy(classifier.network).cpu().to(memory_format=torch.contiguous_format)
        cut = EvaluationCut(image_size or min(classifier.input_size), crop_pct, interpolation)
        mark = {"format": 1, **cut.as_dict(), **(extra or {})}
        how = (classifier, image_size, crop_pct, interpolation)
        if classifier.image_processor is None:
            _save_timm(network, classifier, partial, tag, mark, timm_preprocessing(*how))
        else:
            _save_transformers(network, classifier, partial, mark, image_processor_for(*how))
        # safetensors writes for the owner alone, whatever the umask.
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
        if card is not None:
            (partial / "README.md").write_text(card, encoding="utf-8")
        copy_figures(figures, partial)
        put_in_place(partial, folder)
    except SafetensorError as error:
        raise InputError(f"{folder} could not be written ({error}). Is the disk full?") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def copy_figures(figures: Sequence[Path], folder: Path) -> None:
    """Copy the figures of a card to figures/ in its folder, which is made where there are any."""
    for path in figures:
        (folder / "figures").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "figures" / path.name)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = _MARK in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise InputError(
            f"{str(folder)!r} exists and is not an export of this library; nothing was written. Give another folder."
        )


def _save_timm(
    network: Any, classifier: Classifier, folder: Path, tag: str, mark: dict[str, Any], preprocessing: dict[str, Any]
) -> None:
    from timm.models import save_for_hf

    has_its_size = tuple(network.pretrained_cfg["input_size"][1:]) == classifier.input_size
    network.pretrained_cfg = {
        **network.pretrained_cfg,
        "tag": tag,
        "num_classes": classifier.num_classes,
        **preprocessing,
    }
    # These belonged to the weights that the network started from.
    for key in ("label_names", "label_descriptions", "label_offset", "test_input_size", "test_crop_pct", "state_dict"):
        network.pretrained_cfg.pop(key, None)
    if not has_its_size:  # the last grid is another one as well
        network.pretrained_cfg.pop("pool_size", None)
    model_config: dict[str, Any] = {_MARK: mark}
    if classifier.label_names is not None:
        # A list: transformers shows a dict with integer keys as labels '0', '1', ...
        model_config["label_names"] = list(classifier.label_names)
    save_for_hf(network, str(folder), model_config=model_config, safe_serialization=True)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # transformers passes num_classes itself, and timm 1.0.31 writes it here too: one TypeError for every pipeline.
    config.get("model_args", {}).pop("num_classes", None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_transformers(
    network: Any, classifier: Classifier, folder: Path, mark: dict[str, Any], image_processor: Any
) -> None:
    if classifier.label_names is not None:
        network.config.id2label = dict(enumerate(classifier.label_names))
        network.config.label2id = {name: index for index, name in enumerate(classifier.label_names)}
    network.config.update({_MARK: mark})
    network.save_pretrained(folder)
    image_processor.save_pretrained(folder)
