r"""Evaluate any checkpoint on clean images, under the corruptions of CIFAR-C and ImageNet-C, and under augmentations.

transinv evaluate --model OUT/student --dataset uoft-cs/cifar100 \
    --label_column fine_label
    a folder, a Hub id or a timm name, under all corruptions at all severities

transinv evaluate --mixed_precision bf16 --model google/vit-base-patch16-224 \
    --dataset ILSVRC/imagenet-1k --eval_split validation --streaming \
    --image_size 224 --corrupted_folder ImageNet-C
    the corrupted images as their authors published them

transinv evaluate --model OUT/student --dataset uoft-cs/cifar100 \
    --label_column fine_label --eval_corruptions none \
    --augment pad_crop grayscale color_jitter
    the test sets of Augmentation Invariant Training (table 5), and how far
    they move the predictions (figure 5)

transinv evaluate --model timm/resnet50.a1_in1k --dataset ILSVRC/imagenet-1k \
    --eval_split validation --streaming --protocol published \
    --eval_corruptions none
    resized and cropped as the checkpoint says, to reproduce the accuracy that
    its authors report
"""

import time
from dataclasses import dataclass

from accelerate import Accelerator
from accelerate.utils import gather_object

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.commands.evaluation_images import ImagesConfig
from hf_transinv.config import OutputConfig, as_dict
from hf_transinv.config.checks import choice
from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate, evaluation_markdown
from hf_transinv.evaluation.class_figures import draw_classes
from hf_transinv.evaluation.conditions import AUGMENTATIONS, check_augmentations, chosen_corruptions
from hf_transinv.evaluation.error_pictures import ErrorPictures
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.first_screen import say_run
from hf_transinv.experiment.launch import agree, output_folder, start_accelerator
from hf_transinv.figures import plot_corruption_heatmap
from hf_transinv.files import atomic_write_text, write_json
from hf_transinv.formats.markdown import code, escape
from hf_transinv.formats.terminal import block, printed
from hf_transinv.models import open_classifier
from hf_transinv.models.description import describe
from hf_transinv.models.location import locate
from hf_transinv.record import environment


@dataclass
class ModelConfig:
    """The model.

    Attributes:
        model: timm name, Hub id or local folder.
        match_labels: map each class of the dataset to the model's class of that name, and evaluate among those only.
        trust_label_order: take class k of the dataset as column k of the model, whatever their names.
        trained_on: corruptions that the model was trained on; the table marks them.
    """

    model: str | None = None
    match_labels: bool = False
    trust_label_order: bool = False
    trained_on: tuple[str, ...] = choice((), CORRUPTIONS, is_closed=False)

    def __post_init__(self) -> None:
        if self.model is None:
            raise InputError("no model given: --model with a timm name, a Hub id or a local folder")
        for name in self.trained_on:
            check_corruption(name)


@dataclass
class EvaluationConfig:
    """What is measured, and where the results go.

    Attributes:
        output_dir: folder of the results; default: a new one under outputs/, named by the time.
        eval_corruptions: names of corruptions; default: all; none: only clean images.
        eval_severities: severities, 1 to 5.
        augment: also evaluate under these augmentations, each image augmented once: pad_crop, grayscale,
            color_jitter; for each, how far predictions and features move.
        eval_batch_size: images in a batch.
        seed: of the corruptions and augmentations.
        corrupted_folder: corrupted images as the authors of CIFAR-C (NAME.npy, labels.npy) or ImageNet-C
            (NAME/SEVERITY/CLASS/*.JPEG) publish them; default: they are made here.
        frost_folder: the authors' pictures of frost; default: synthetic ones.
    """

    output_dir: str | None = None
    eval_corruptions: tuple[str, ...] = ("all",)
    eval_severities: tuple[int, ...] = choice((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), is_closed=False)
    augment: tuple[str, ...] = choice((), AUGMENTATIONS, is_closed=False)
    eval_batch_size: int = 500
    seed: int = 0
    corrupted_folder: str | None = None
    frost_folder: str | None = None

    def __post_init__(self) -> None:
        self.output = OutputConfig(
            output_dir=self.output_dir,
            eval_corruptions=self.eval_corruptions,
            eval_severities=self.eval_severities,
            eval_augment=self.augment,
            eval_batch_size=self.eval_batch_size,
        )
        self.corruptions = chosen_corruptions(self.output.eval_corruptions)
        check_augmentations(self.augment)
        if self.corrupted_folder and self.frost_folder:
            raise InputError(
                "give corrupted_folder or frost_folder, not both: corruptions that are read need no frost"
            )

    @property
    def images_from(self) -> str:
        """Where the corrupted images come from, for the table."""
        if self.corrupted_folder:
            return f"Corrupted images of {self.corrupted_folder}."
        frost = f"the frost of {self.frost_folder}" if self.frost_folder else "synthetic frost"
        return f"Corrupted images made with seed {self.seed}, batches of {self.eval_batch_size} and {frost}."


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    groups = parse([ModelConfig, ImagesConfig, EvaluationConfig], description=description)
    names, images, what = groups
    started = time.time()
    accelerator: Accelerator = start_accelerator(what.output)
    if images.protocol == "published" and what.corrupted_folder:
        raise InputError(
            "corrupted_folder with protocol published: those images are cropped already; leave out one of the two"
        )
    folder = agree(accelerator, lambda: output_folder(what.output, "evaluate"))
    say_run(accelerator, what.output, folder, images.dataset)
    model = open_classifier(names.model).to(accelerator.device)
    split = images.open(model, names.match_labels or names.trust_label_order)
    if accelerator.is_main_process:
        print(f"{block((*images.told, f'model       {describe(model, images.image_size)}'))}\n", flush=True)
    pictures = ErrorPictures()
    results = evaluate(
        model,
        split,
        accelerator=accelerator,
        corruptions=what.corruptions,
        severities=what.eval_severities,
        augmentations=what.augment,
        batch_size=what.eval_batch_size,
        seed=what.seed,
        corrupted_folder=what.corrupted_folder,
        frost_folder=what.frost_folder,
        match_labels=names.match_labels,
        trust_label_order=names.trust_label_order,
        error_pictures=pictures,
    )
    error_images = pictures.images(accelerator)
    skipped = split.skipped if accelerator.num_processes == 1 else gather_object(split.skipped)
    if accelerator.is_main_process:
        kin = _recorded_kin(names.model)
        record = {
            "model": names.model,
            "dataset": images.dataset,
            "split": images.eval_split,
            "revision": images.dataset_revision,
            "processes": accelerator.num_processes,
            "precision": accelerator.mixed_precision,
            "protocol": images.protocol,
            "cut": images.cut and images.cut.as_dict(),
            "preprocessing": images.preprocessing,
            "images_skipped": len(skipped),
            "kin": kin,
            "config": as_dict(*groups),
            **environment(),
            "seconds": round(time.time() - started, 1),
            "results": results,
        }
        sides = "x".join(map(str, model.input_size))
        size = str(images.cut or f"{sides} px, published")
        title = f"{code(names.model)} on {code(images.dataset)}, split {escape(images.eval_split)}, {size}"
        table = evaluation_markdown(title, results, names.trained_on, kin)
        table += f"\n{images.preprocessing}\n" if images.preprocessing else ""
        table += f"\n{what.images_from}\n" if results["corruptions"] else ""
        table += f"\n{len(skipped)} images could not be decoded and are left out.\n" if skipped else ""
        write_json(folder / "evaluation.json", record)
        atomic_write_text(folder / "evaluation.md", table)
        draw_classes(results, error_images, folder / "figures")
        if results["corruptions"]:
            plot_corruption_heatmap({names.model: results}, folder / "corruption_heatmap.png")
        if skipped:
            atomic_write_text(folder / "skipped_images.txt", "".join(f"{line}\n" for line in sorted(skipped)))
        print(f"\n{printed(table)}\nTable and evaluation.json are in {folder}")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _recorded_kin(name: str) -> list[str]:
    """The corruptions that a run's export says its training imitated; none where it does not say."""
    config = locate(name, revision=None, architecture=None, with_weights=False).config or {}
    mark = config.get("hf_transinv")
    kin = mark.get("kin") if isinstance(mark, dict) else None
    return [one for one in kin if one in CORRUPTIONS] if isinstance(kin, list) else []
