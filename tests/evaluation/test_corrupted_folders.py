"""Corrupted images read from folders as CIFAR-C and ImageNet-C are published: the right images, and each refusal."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_transinv.augment.corruptions import corrupt
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate
from tests.evaluation.test_evaluation import make_classifier, make_split

NUM_IMAGES = 12
OPTIONS = {"corruptions": ("contrast", "pixelate"), "severities": (1, 4), "batch_size": 5, "show_progress": False}


def corrupted_levels(split, name, severity):
    """uint8 [N, 32, 32, 3]; none of these corruptions draws random numbers."""
    images = corrupt(split.images.float() / 255, name, severity)
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.fixture
def cifar_c(tmp_path):
    """The corrupted images of `make_split(12)`, as CIFAR-C has them."""
    split = make_split(NUM_IMAGES)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for name in ("contrast", "pixelate"):
        stacked = [corrupted_levels(split, name, severity) for severity in range(1, 6)]
        np.save(folder / f"{name}.npy", np.concatenate(stacked))
    np.save(folder / "labels.npy", np.tile(split.labels.numpy(), 5).astype(np.uint8))
    return folder


def write_imagenet_c(folder, split, class_folders):
    for name in ("contrast", "pixelate"):
        for severity in (1, 4):
            levels = corrupted_levels(split, name, severity)
            for class_folder in class_folders:
                (folder / name / str(severity) / class_folder).mkdir(parents=True)
            for number, (image, label) in enumerate(zip(levels, split.labels.tolist(), strict=True)):
                path = folder / name / str(severity) / class_folders[label] / f"{number:03}.PNG"
                Image.fromarray(image).save(path)
    return folder


def by_class(split):
    """The order in which class folders are read."""
    order = split.labels.argsort(stable=True)
    return ResidentSplit(split.images[order], split.labels[order], split.label_names)


def test_cifar_c_gives_what_corrupting_gives(cifar_c):
    made = evaluate(make_classifier(), make_split(NUM_IMAGES), **OPTIONS)
    read = evaluate(make_classifier(), make_split(NUM_IMAGES), corrupted_folder=cifar_c, **OPTIONS)
    assert read["corruptions"] == made["corruptions"]
    assert read == made


def test_augmented_images_are_the_splits_own(cifar_c):
    options = OPTIONS | {"augmentations": ("color_jitter", "pad_crop")}
    made = evaluate(make_classifier(), make_split(NUM_IMAGES), **options)
    assert evaluate(make_classifier(), make_split(NUM_IMAGES), corrupted_folder=cifar_c, **options) == made
    assert list(made["augmented"]) == ["color_jitter", "pad_crop"]


def test_cifar_c_may_have_other_images_than_the_split(cifar_c):
    """The labels and the number of the corrupted images are the folder's, whatever the clean split has."""
    made = evaluate(make_classifier(), make_split(NUM_IMAGES), **OPTIONS)
    read = evaluate(make_classifier(), make_split(30), corrupted_folder=cifar_c, **OPTIONS)
    assert read["corruptions"] == made["corruptions"] and read["num_images"] == 30


@pytest.mark.parametrize("kinds", [False, True])
def test_imagenet_c_gives_what_corrupting_gives(tmp_path, kinds):
    split = make_split(NUM_IMAGES)
    write_imagenet_c(tmp_path / "C" / "digital" if kinds else tmp_path / "C", split, split.label_names)
    read = evaluate(make_classifier(), by_class(split), corrupted_folder=tmp_path / "C", **OPTIONS)
    assert read == evaluate(make_classifier(), by_class(split), **OPTIONS)


def test_class_folders_are_taken_by_name_or_in_the_order_of_their_wordnet_ids(tmp_path):
    split = make_split(NUM_IMAGES)
    ids = [f"n0000000{label}" for label in range(7)]
    sorted_order = write_imagenet_c(tmp_path / "ids", split, ids)
    made = evaluate(make_classifier(), by_class(split), **OPTIONS)["corruptions"]
    read = evaluate(make_classifier(), by_class(split), corrupted_folder=sorted_order, **OPTIONS)
    assert read["corruptions"] == made
    names = ["g", "f", "e", "d", "c", "b", "a"]
    named = ResidentSplit(split.images, split.labels, names)
    by_name = write_imagenet_c(tmp_path / "names", named, names)
    read = evaluate(make_classifier(), named, corrupted_folder=by_name, **OPTIONS)
    assert {name: row["mean"] for name, row in read["corruptions"].items()} == pytest.approx(
        {name: row["mean"] for name, row in made.items()}
    )


def refusal(folder, **options):
    with pytest.raises(InputError) as error:
        evaluate(make_classifier(), make_split(NUM_IMAGES), corrupted_folder=folder, **(OPTIONS | options))
    return str(error.value)


def test_cifar_c_that_cannot_be_used_is_named(cifar_c):
    assert "frost.npy; expected uint8 [60, H, W, 3]" in refusal(cifar_c, corruptions=("contrast", "frost"))
    images, labels = np.load(cifar_c / "contrast.npy"), np.load(cifar_c / "labels.npy")
    np.save(cifar_c / "contrast.npy", images[:-1])
    assert "contrast.npy holds uint8 [59, 32, 32, 3]; expected uint8 [60, H, W, 3]" in refusal(cifar_c)
    np.save(cifar_c / "contrast.npy", images / 255)
    assert "contrast.npy holds float64 [60, 32, 32, 3]" in refusal(cifar_c)
    np.save(cifar_c / "contrast.npy", images.transpose(0, 3, 1, 2))
    assert "contrast.npy holds uint8 [60, 3, 32, 32]" in refusal(cifar_c)
    np.save(cifar_c / "contrast.npy", np.array([{"a": "pickle"}]), allow_pickle=True)
    assert "contrast.npy cannot be read" in refusal(cifar_c)
    (cifar_c / "contrast.npy").write_bytes(b"\x93NUMPY")
    assert "contrast.npy cannot be read" in refusal(cifar_c)
    np.save(cifar_c / "contrast.npy", images)
    np.save(cifar_c / "labels.npy", labels + 1)
    assert "labels.npy holds labels from 1 to 7; expected 0 to 6" in refusal(cifar_c)
    np.save(cifar_c / "labels.npy", labels[:-1])
    assert "labels.npy holds uint8 [59]; expected integers [5 N]" in refusal(cifar_c)
    np.save(cifar_c / "labels.npy", labels.astype(float))
    assert "labels.npy holds float64 [60]" in refusal(cifar_c)
    (cifar_c / "labels.npy").unlink()
    assert "labels.npy; expected integers" in refusal(cifar_c)


def test_imagenet_c_that_cannot_be_used_is_named(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    assert "neither labels.npy" in refusal(tmp_path)
    split = make_split(NUM_IMAGES)
    folder = write_imagenet_c(tmp_path / "C", split, split.label_names)
    assert "There is no folder fog in" in refusal(folder, corruptions=("contrast", "fog"))
    assert "contrast/2 with a folder for each class" in refusal(folder, severities=(1, 2))
    (folder / "pixelate" / "4" / "0").rename(folder / "pixelate" / "4" / "cat")
    (folder / "pixelate" / "4" / "dog").mkdir()
    assert "8 class folders, 2 of which are not called like one of the dataset's 7 classes" in refusal(folder)
