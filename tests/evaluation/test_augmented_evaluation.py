"""Evaluation under augmentations: the test sets, top-1, how far the answers move; each worked out an image at a time.

Two processes and streams are in test_evaluation.py, the recipe in test_evaluate_recipe.py.
"""

import pytest
import timm
import torch
from torchvision.transforms.v2 import functional

from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError
from hf_transinv.evaluation import corruption_markdown, evaluate, evaluation_markdown
from hf_transinv.evaluation.conditions import AUGMENTATIONS, Augmented
from hf_transinv.models.classifier import Classifier
from tests.evaluation.test_evaluation import make_classifier, make_split, named
from tests.oracles import losses as oracle

ALL = tuple(AUGMENTATIONS)


def timm_classifier(num_classes=7):
    """timm's smallest ViT with a head that tells images apart."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=num_classes, img_size=32)
    torch.nn.init.normal_(network.get_classifier().weight, std=0.5)
    return Classifier(network, num_classes=num_classes, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=(32, 32))


def random_images(num_images, side=8):
    return torch.rand(num_images, 3, side, side, generator=torch.Generator().manual_seed(7))


# The test sets


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("batch_size", [1, 7, 500, 512, 1100])
def test_an_image_is_augmented_alike_in_batches_of_any_size(name, batch_size):
    num_images = 1100 if batch_size > 7 else 20
    images = random_images(1100)
    whole = Augmented(name).apply(images, 3, 0)
    parts = [
        Augmented(name).apply(images[first : min(first + batch_size, num_images)], 3, first)
        for first in range(0, num_images, batch_size)
    ]
    assert torch.equal(torch.cat(parts), whole[:num_images])
    assert torch.equal(Augmented(name).apply(images[490:510], 3, 490), whole[490:510]), "across a block"


def test_the_seed_decides_what_is_random():
    images = random_images(40)
    torch.manual_seed(0)
    first = {name: Augmented(name).apply(images, 0, 0) for name in ALL}
    torch.manual_seed(1)
    for name in ALL:
        assert torch.equal(Augmented(name).apply(images, 0, 0), first[name])
        assert torch.equal(Augmented(name).apply(images, 1, 0), first[name]) is (name == "grayscale")
    same_images = images[:1].expand(40, -1, -1, -1)
    for name in ("pad_crop", "color_jitter"):
        augmented = Augmented(name).apply(same_images, 0, 0)
        assert len(augmented.flatten(1).unique(dim=0)) > 5, "each image has draws of its own"


def test_all_images_of_the_grayscale_set_are_grey():
    images = random_images(30)
    expected = functional.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(Augmented("grayscale").apply(images, 0, 0), expected, atol=1e-6, rtol=0)


def test_a_crop_is_one_of_the_shifts_never_mirrored():
    """8 pixels have a border of 1: nine shifts."""
    images = random_images(200)
    padded = torch.nn.functional.pad(images, (1,) * 4)
    shifts = torch.stack([padded[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)], dim=1)
    found = Augmented("pad_crop").apply(images, 0, 0)
    is_shift = (shifts == found[:, None]).flatten(2).all(2)
    assert (is_shift.sum(1) == 1).all() and is_shift.any(0).all()


def test_jitter_stays_within_a_tenth_of_brightness():
    """White goes to its brightness factor, whatever contrast and saturation do to a plain image."""
    found = Augmented("color_jitter").apply(torch.full((300, 3, 4, 4), 0.5), 0, 0)
    assert 0.4499 <= found.min() < 0.455 and 0.545 < found.max() <= 0.5501


# The results


def scores_by_hand(model, images, augmented, labels):
    """Top-1, mean KL and mean Euclidean distance, an image at a time, in float64."""
    model = model.double().eval()
    right, kls, distances = [], [], []
    for original, copy, label in zip(images.double(), augmented.double(), labels.tolist(), strict=True):
        answers, features = [], []
        for image in (original, copy):
            with torch.no_grad():
                before = model.network.forward_features(model.prepare(image[None]))
                features.append(model.network.forward_head(before, pre_logits=True)[0].tolist())
                answers.append(model(image[None])[0].tolist())
        right.append(max(range(len(answers[1])), key=answers[1].__getitem__) == label)
        kls.append(oracle.kl(*map(oracle.probabilities, answers)))
        distances.append(oracle.euclidean(*features))
    n = len(right)
    return {"top1": 100 * sum(right) / n, "kl": sum(kls) / n, "feature_distance": sum(distances) / n}


def test_the_scores_equal_those_by_hand():
    split = make_split(30)
    result = evaluate(timm_classifier(), split, augmentations=ALL, batch_size=8, seed=5, show_progress=False)
    assert tuple(result["augmented"]) == ALL
    images = split.images / 255
    for name, found in result["augmented"].items():
        expected = scores_by_hand(timm_classifier(), images, Augmented(name).apply(images, 5, 0), split.labels)
        assert found == pytest.approx(expected, rel=2e-4), name
        assert found["kl"] > 1e-3 and found["feature_distance"] > 1e-2


def test_batches_of_another_size_give_the_same():
    split = make_split(40)
    small, large = (
        evaluate(timm_classifier(), split, augmentations=ALL, batch_size=size, show_progress=False)["augmented"]
        for size in (7, 40)
    )
    for name in ALL:
        assert small[name] == pytest.approx(large[name], rel=1e-4)


def test_features_are_left_out_where_the_last_layer_is_not_known():
    found = evaluate(make_classifier(), make_split(), augmentations=ALL, show_progress=False)["augmented"]
    assert all(row["feature_distance"] is None and row["kl"] > 0 for row in found.values())


def test_nothing_else_changes_beside_them():
    options = {"corruptions": ("gaussian_noise",), "severities": (2, 5), "batch_size": 10, "show_progress": False}
    without = evaluate(timm_classifier(), make_split(), **options)
    beside = evaluate(timm_classifier(), make_split(), augmentations=ALL, **options)
    assert without["augmented"] == {}
    assert beside | {"augmented": {}} == without


def test_predictions_are_compared_among_the_matched_classes():
    """Three of seven columns: the same as a head of those three."""
    names = [f"class {index}" for index in range(7)]
    images = make_split(30, 3)
    split = ResidentSplit(images.images, images.labels, ["class 6", "class 0", "class 1"])
    large, small = timm_classifier(7), timm_classifier(3)
    small.network.load_state_dict(
        {
            name: value[[6, 0, 1]] if name.startswith("head.") else value
            for name, value in large.network.state_dict().items()
        }
    )
    matched = evaluate(named(large, names), split, augmentations=("pad_crop",), match_labels=True, show_progress=False)
    expected = evaluate(small, split, augmentations=("pad_crop",), show_progress=False)
    assert matched["augmented"]["pad_crop"] == pytest.approx(expected["augmented"]["pad_crop"], rel=1e-5)


def test_unknown_augmentations_are_refused_before_anything_is_computed():
    with pytest.raises(InputError, match="under crop, rain: unknown; there are pad_crop, grayscale, color_jitter"):
        evaluate(make_classifier(), make_split(), augmentations=("crop", "grayscale", "rain"))


# Tables


ROWS = {
    "pad_crop": {"top1": 61.26, "kl": 0.12345, "feature_distance": 1.5},
    "grayscale": {"top1": 40.0, "kl": 1.0, "feature_distance": 2.25},
}
CLEAN = {"clean": {"top1": 70.0}, "corruptions": {}, "corruption_mean": None, "corruption_errors": {}}


def test_the_table_of_models_has_columns_where_they_were_measured():
    results = {"a": CLEAN | {"augmented": ROWS}, "old record": CLEAN}
    assert corruption_markdown(results).splitlines() == [
        "| model | clean | pad crop | grayscale |",
        "| --- | ---: | ---: | ---: |",
        "| a | 70.0 | 61.3 | 40.0 |",
        "| old record | 70.0 | – | – |",
    ]


def test_the_table_of_one_model():
    result = evaluate(timm_classifier(), make_split(), show_progress=False)
    assert "augmented" not in evaluation_markdown("a on b", result)
    text = evaluation_markdown("a on b", result | {"augmented": ROWS})
    lines = text[text.index("| augmented by") :].splitlines()
    assert lines[:4] == [
        "| augmented by | top-1 | KL | feature distance |",
        "| --- | ---: | ---: | ---: |",
        "| pad crop | 61.3 | 0.1235 | 1.500 |",
        "| grayscale | 40.0 | 1.0000 | 2.250 |",
    ]
    unknown = {name: row | {"feature_distance": None} for name, row in ROWS.items()}
    text = evaluation_markdown("a on b", result | {"augmented": unknown})
    assert "| augmented by | top-1 | KL |\n" in text and "eature" not in text
