"""Evaluation against sums taken by hand, and the same digits from one process and from two."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hf_transinv
from hf_transinv.augment.corruptions import CORRUPTIONS, corrupt
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.errors import InputError
from hf_transinv.evaluation import corruption_markdown, evaluate, evaluation_markdown
from hf_transinv.evaluation.scores import calibration_error as ece_of
from hf_transinv.evaluation.splits import SourceSplit
from hf_transinv.evaluation.summary import ALEXNET_ERRORS, corruption_errors
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.labels import class_columns


def make_classifier(num_classes=7):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )
    network[5].weight.data.mul_(20)
    return Classifier(network, num_classes=num_classes, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=(32, 32))


def make_split(num_images=23, num_classes=7):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num_images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images[:, :, ::2] //= 3
    labels = torch.arange(num_images) % num_classes
    return ResidentSplit(images, labels, [str(label) for label in range(num_classes)])


def scores_by_hand(classifier, images, labels):
    """The scores of a result, an image at a time, in float64, each from its definition."""
    classifier = classifier.double().eval()
    top1, top5, nll, brier, confidences = [], [], [], [], []
    for image, label in zip(images.double(), labels.tolist(), strict=True):
        with torch.no_grad():
            logits = classifier(image[None])[0].numpy()
        ranks = np.argsort(-logits)
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        top1.append(ranks[0] == label)
        top5.append(label in ranks[:5])
        nll.append(-np.log(probabilities[label]))
        brier.append(sum((p - (c == label)) ** 2 for c, p in enumerate(probabilities)))
        confidences.append(probabilities.max())
    scores = {"top1": 100 * np.mean(top1), "top5": 100 * np.mean(top5), "nll": np.mean(nll), "brier": np.mean(brier)}
    return scores | {"ece": calibration_error(confidences, top1)}


def calibration_error(confidences, is_right):
    """Guo et al. 2017, equation 3: 15 bins, the last one closed."""
    error = 0
    for m in range(15):
        inside = [i for i, c in enumerate(confidences) if m / 15 <= c < (m + 1) / 15 or (m == 14 and c == 1)]
        if inside:
            accuracy = np.mean([is_right[i] for i in inside])
            error += len(inside) / len(confidences) * abs(accuracy - np.mean([confidences[i] for i in inside]))
    return error


def test_clean_scores_equal_those_by_hand():
    split = make_split(200)
    result = evaluate(make_classifier(), split, batch_size=64, show_progress=False)
    by_hand = scores_by_hand(make_classifier(), split.images / 255, split.labels)
    assert result["num_images"] == 200
    assert 0 < by_hand["top1"] < by_hand["top5"] < 100 and by_hand["ece"] > 0.05
    assert result["clean"] == pytest.approx(by_hand, rel=1e-5)
    assert (result["corruptions"], result["corruption_mean"]) == ({}, None)
    assert (result["corruption_ece"], result["corruption_errors"]) == (None, {})


def test_a_confidence_of_one_lies_in_the_last_bin():
    """Right, wrong and unsure images at 0.97 and at exactly 1, as saturated networks in float32 have them."""
    confidences = torch.tensor([1.0, 1.0, 1.0, 0.97, 0.97, 0.2])
    is_right = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    scores = torch.zeros(6, 5)
    scores[:, 0], scores[:, 4] = is_right, confidences
    expected = calibration_error(confidences.double().tolist(), is_right.tolist())
    assert ece_of(scores) == pytest.approx(expected, abs=1e-6)


def test_corruption_scores_equal_those_by_hand():
    split = make_split()
    result = evaluate(
        make_classifier(),
        split,
        corruptions=("contrast", "pixelate"),
        severities=(1, 4),
        batch_size=10,
        show_progress=False,
    )
    eces = []
    for name, row in result["corruptions"].items():
        images = [corrupt(split.images / 255, name, severity) for severity in (1, 4)]
        scores = [scores_by_hand(make_classifier(), corrupted, split.labels) for corrupted in images]
        by_hand, eces = [score["top1"] for score in scores], [*eces, *(score["ece"] for score in scores)]
        assert [row["1"], row["4"]] == pytest.approx(by_hand)
        assert row["mean"] == pytest.approx(np.mean(by_hand))
    means = [row["mean"] for row in result["corruptions"].values()]
    assert list(result["corruptions"]) == ["contrast", "pixelate"]
    assert result["corruption_mean"] == pytest.approx(np.mean(means))
    assert result["corruption_ece"] == pytest.approx(np.mean(eces), rel=1e-4)
    ((name, error),) = result["corruption_errors"].items()
    assert name == "mean_error" and error["percent"] == pytest.approx(100 - np.mean(means))
    assert "2 of the 15 corruptions, 2 of the 5 severities" in error["definition"]
    assert (result["severities"], result["seed"]) == ([1, 4], 0)
    assert json.loads(json.dumps(result)) == result


def test_top5_is_left_out_where_it_says_nothing():
    result = evaluate(make_classifier(5), make_split(num_classes=5), show_progress=False)
    assert set(result["clean"]) == {"top1", "nll", "ece", "brier"}


def test_noise_depends_on_the_seed_and_not_on_what_else_is_evaluated():
    split = make_split(200)
    options = {"severities": (5,), "batch_size": 64, "show_progress": False}
    torch.manual_seed(3)
    first = evaluate(make_classifier(), split, corruptions=("gaussian_noise",), **options)
    torch.manual_seed(4)
    second = evaluate(make_classifier(), split, corruptions=("impulse_noise", "gaussian_noise"), **options)
    assert second["corruptions"]["gaussian_noise"] == first["corruptions"]["gaussian_noise"]
    others = [
        evaluate(make_classifier(), split, corruptions=("gaussian_noise",), seed=seed, **options)["corruptions"]
        for seed in (1, 2, 3)
    ]
    assert any(other != first["corruptions"] for other in others)


def test_nobody_moves_and_every_module_gets_its_mode_back():
    classifier = make_classifier().train()
    classifier.network[0].eval()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    modes = [module.training for module in classifier.modules()]
    random_state = torch.get_rng_state()
    evaluate(classifier, make_split(), corruptions=("elastic_transform",), severities=(2,), show_progress=False)
    with pytest.raises(InputError):
        evaluate(classifier, make_split(num_classes=9), show_progress=False)
    assert [module.training for module in classifier.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_unusable_input_is_refused_before_anything_is_computed():
    classifier, split = make_classifier(), make_split()
    with pytest.raises(InputError, match=r"'rain'.*contrast"):
        evaluate(classifier, split, corruptions=("rain",))
    with pytest.raises(InputError, match="1 to 5"):
        evaluate(classifier, split, corruptions=("contrast",), severities=(0,))
    with pytest.raises(InputError, match="empty"):
        evaluate(classifier, ResidentSplit(split.images[:0], split.labels[:0], split.label_names))
    with pytest.raises(InputError, match="at least 1"):
        evaluate(classifier, split, batch_size=0)
    with pytest.raises(InputError, match=r"classifier has 7 classes, the data 9.*num_classes=9"):
        evaluate(classifier, make_split(num_classes=9))
    with pytest.raises(InputError, match="label 6 and 3 label names"):
        evaluate(make_classifier(3), ResidentSplit(split.images, split.labels, ["a", "b", "c"]))


TWO_PROCESSES = """
import json, sys
from accelerate import Accelerator
from test_evaluation import digits, evaluate, make_classifier, make_split

accelerator = Accelerator()
assert accelerator.num_processes == 2
corruptions = ("gaussian_noise", "elastic_transform")
options = dict(corruptions=corruptions, severities=(1, 5), batch_size=10, show_progress=False)
options["augmentations"] = ("pad_crop", "color_jitter")
classifier = make_classifier().train()
alone = evaluate(classifier, make_split(), **options)
prepared = accelerator.prepare(classifier)
together = evaluate(prepared, make_split(), accelerator=accelerator, **options)
five = accelerator.prepare(make_classifier(5))
streamed = [evaluate(five, digits(), accelerator=accelerator, **options | {"batch_size": 300}) for _ in range(2)]
found = [alone, together, prepared.training, streamed]
json.dump(found, open(f"{sys.argv[1]}/{accelerator.process_index}.json", "w"))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def digits(streaming=True):
    """796 images of 8 pixels, read as they go."""
    return SourceSplit(open_source("digits/target", split="test", streaming=streaming), 32)


def test_two_processes_give_the_digits_of_one(tmp_path):
    """Three batches on two processes, the model wrapped for distributed training and with BatchNorm buffers.

    And a stream: three batches, the last of 196 images, the second process has one of them.
    """
    options = {"corruptions": ("gaussian_noise", "elastic_transform"), "severities": (1, 5), "show_progress": False}
    options["augmentations"] = ("pad_crop", "color_jitter")
    torch.set_num_threads(1)
    streamed_alone = evaluate(make_classifier(5), digits(), batch_size=300, **options)
    (tmp_path / "main.py").write_text(TWO_PROCESSES)
    own = [str(Path(__file__).parent), str(Path(hf_transinv.__file__).parents[1])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*own, os.environ.get("PYTHONPATH", "")]),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*launcher, str(tmp_path / "main.py"), str(tmp_path)], env=environment, check=True, timeout=120)
    for rank in range(2):
        alone, together, is_training, streamed = json.loads((tmp_path / f"{rank}.json").read_text())
        assert alone == together
        assert is_training
        assert streamed == [streamed_alone, streamed_alone]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_split_read_as_it_goes_gives_the_digits_of_a_resident_one(streaming):
    resident = ResidentSplit.load(open_source("digits/target", split="test"), image_size=32, show_progress=False)
    options = {"corruptions": ("fog", "gaussian_noise"), "severities": (3,), "batch_size": 128, "show_progress": False}
    options["augmentations"] = ("grayscale", "pad_crop")
    expected = evaluate(make_classifier(5), resident, **options)
    assert evaluate(make_classifier(5), digits(streaming), **options) == expected
    assert expected["num_images"] == 796


# mCE


def table_of(error):
    """A whole table in which the error of a corruption grows with the severity around `error(name)`."""
    table = {}
    for name in CORRUPTIONS:
        table[name] = {str(s): 100 - error(name) * (0.7 + 0.1 * s) for s in range(1, 6)}
        table[name]["mean"] = sum(table[name].values()) / 5
    return table


def test_mce_of_small_images_is_the_plain_mean_of_the_error():
    table = table_of(lambda name: 20 + len(name))
    errors = corruption_errors(table, 32)
    cells = [100 - row[str(severity)] for row in table.values() for severity in range(1, 6)]
    assert list(errors) == ["mCE"] and errors["mCE"]["percent"] == pytest.approx(np.mean(cells))
    assert "CIFAR-C" in errors["mCE"]["definition"]


def test_mce_of_large_images_is_also_normalised_by_alexnet():
    assert set(ALEXNET_ERRORS) == set(CORRUPTIONS)
    errors = corruption_errors(table_of(ALEXNET_ERRORS.get), 224)
    assert list(errors) == ["mCE", "mCE_alexnet"]
    assert errors["mCE_alexnet"]["percent"] == pytest.approx(100), "AlexNet's own mCE"
    # The fifteen constants add up to 1183.5.
    assert errors["mCE"]["percent"] == pytest.approx(78.9)
    half = corruption_errors(table_of(lambda name: ALEXNET_ERRORS[name] / (1 + (name == "fog"))), 224)
    assert half["mCE_alexnet"]["percent"] == pytest.approx(100 * (14 + 0.5) / 15)


def test_a_table_with_a_corruption_missing_has_no_mce():
    table = table_of(lambda name: 20)
    del table["frost"]
    assert list(corruption_errors(table, 224)) == ["mean_error"]


# Labels


def named(classifier, names):
    classifier.label_names = names
    return classifier


NAMES = ["tench, Tinca tinca", "great_white-shark", "Ostrich", "crane", "crane", "kite", "hen"]


def test_permuted_names_are_mapped_and_said(caplog):
    split = replace(make_split(), label_names=NAMES)
    expected = evaluate(named(make_classifier(), NAMES), split, show_progress=False)
    permuted = make_classifier()
    layer, own = permuted.network[5], make_classifier().network[5]
    order = [6, 3, 0, 2, 1, 4, 5]  # column c answers for class order[c]
    layer.weight.data, layer.bias.data = own.weight.data[order], own.bias.data[order]
    with caplog.at_level(logging.INFO):
        result = evaluate(named(permuted, [NAMES[c] for c in order]), split, show_progress=False)
    assert result["clean"] == pytest.approx(expected["clean"], rel=1e-6)
    assert "mapped by name" in caplog.text


@pytest.mark.parametrize("names", [list("abcdexy"), list("ABCDEFG"), ["b", "a", *"cdexy"], ["a ", *"bcdefg"]])
def test_other_names_in_the_same_number_are_refused_or_trusted_when_asked(names, caplog):
    split = replace(make_split(), label_names=list("abcdefg"))
    expected = evaluate(make_classifier(), split, show_progress=False)
    assert "the model does not say what its 7 classes are called: their order is trusted" in caplog.text
    model = named(make_classifier(), names)
    with pytest.raises(InputError, match=r"of the data's 7 classes are not called like.*--trust_label_order"):
        evaluate(model, split, show_progress=False)
    assert evaluate(model, split, show_progress=False, trust_label_order=True) == expected


def test_another_number_of_classes_is_refused_with_the_way_out():
    split = make_split(num_classes=5)
    model = named(make_classifier(7), list("0123xyz"))
    with pytest.raises(InputError, match=r"has 7 classes, the data 5; 4 of the data's classes.*--match_labels"):
        evaluate(model, split)
    with pytest.raises(InputError, match=r"1 of the data's 5 classes have no class.*'4'"):
        evaluate(model, split, match_labels=True)
    with pytest.raises(InputError, match="label names are not known"):
        evaluate(make_classifier(7), split, match_labels=True)


def test_matched_classes_are_evaluated_among_themselves():
    """Three of seven columns: the same as a head of those three."""
    split = replace(make_split(num_classes=3), label_names=["hen", "Tinca tinca", "great_white-shark"])
    small = make_classifier(3)
    large = make_classifier(7)
    small.network.load_state_dict(
        large.network.state_dict()
        | {"5.weight": large.network[5].weight.data[[6, 0, 1]], "5.bias": large.network[5].bias.data[[6, 0, 1]]}
    )
    result = evaluate(named(large, NAMES), split, match_labels=True, show_progress=False)
    assert result["clean"] == pytest.approx(evaluate(small, split, show_progress=False)["clean"], rel=1e-6)


def test_only_the_first_ten_missing_classes_are_listed():
    with pytest.raises(InputError, match=r"'c0'.*'c9', \.\.\. \(20 in all\)") as error:
        class_columns(["a", "b"], 2, [f"c{i}" for i in range(20)], match_labels=True)
    assert "'c10'" not in str(error.value)


@pytest.mark.parametrize("asked", [["crane"], ["crane", "CRANE", "crane"], ["hen", "HEN"]])
def test_a_name_that_could_be_two_classes_is_refused(asked):
    with pytest.raises(InputError, match="to themselves"):
        class_columns(NAMES, 7, asked, match_labels=True)


# Tables


def test_the_table_has_a_row_a_model_and_a_dash_where_nothing_was_measured():
    full = {
        "clean": {"top1": 92.634},
        "corruptions": {"gaussian_noise": {"1": 80.0, "2": 70.0, "mean": 75.0}, "contrast": {"1": 60.0, "mean": 60.0}},
        "corruption_mean": 67.5,
    }
    part = {
        "clean": {"top1": 50.0},
        "corruptions": {"contrast": {"1": 40.04, "mean": 40.04}},
        "corruption_mean": 40.04,
    }
    assert corruption_markdown({"crop | flip": full, "TransInv": part}) == (
        "| model | clean | gaussian noise | contrast | mean of corruptions |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| crop \\| flip | 92.6 | 75.0 | 60.0 | 67.5 |\n"
        "| TransInv | 50.0 | – | 40.0 | – |\n"
    )
    clean_only = {"clean": {"top1": 1.0}, "corruptions": {}, "corruption_mean": None}
    assert corruption_markdown({"a": clean_only}) == "| model | clean |\n| --- | ---: |\n| a | 1.0 |\n"


def test_corruptions_trained_on_are_marked_and_left_out_of_the_last_mean():
    table = {"fog": {"1": 60.0, "mean": 60.0}, "snow": {"1": 40.0, "mean": 40.0}, "frost": {"1": 20.0, "mean": 20.0}}
    measures = {"mCE": {"percent": 60.0, "definition": "as agreed"}}
    result = {"clean": {"top1": 90.0}, "corruptions": table, "corruption_mean": 40.0, "corruption_errors": measures}
    assert corruption_markdown({"teacher": result, "other": result}, {"teacher": ("snow", "contrast")}) == (
        "| model | clean | snow | fog | frost | mean of corruptions | mean of the others | mCE |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| teacher | 90.0 | 40.0\\* | 60.0 | 20.0 | 40.0\\* | 40.0 | 60.0\\* |\n"
        "| other | 90.0 | 40.0 | 60.0 | 20.0 | 40.0 | 40.0 | 60.0 |\n"
        "\n\\* The model was trained on this corruption, or on one of those in the mean.\n"
        "\nmCE: as agreed.\n"
    )


def test_the_table_of_one_model_has_a_row_a_corruption_and_means_both_ways():
    split = make_split()
    options = {"corruptions": ("contrast", "pixelate"), "severities": (1, 4), "show_progress": False}
    result = evaluate(make_classifier(), split, **options)
    contrast, pixelate = result["corruptions"].values()
    text = evaluation_markdown("a on b", result, trained_on=["contrast"])
    table = text[text.index("| corruption |") :]
    lines = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in line] for line in lines if "---" not in line[0]] == [
        ["corruption", "1", "4", "mean"],
        ["contrast", *(f"{contrast[column]:.1f}\\*" for column in ("1", "4", "mean"))],
        ["pixelate", *(f"{pixelate[column]:.1f}" for column in ("1", "4", "mean"))],
        ["mean", *(f"{(contrast[column] + pixelate[column]) / 2:.1f}\\*" for column in ("1", "4", "mean"))],
    ]
    assert text.startswith(f"a on b\n\n23 clean images: top-1 {result['clean']['top1']:.2f} %, top-5 ")
    assert "not an mCE" in text and f"ECE under corruption {result['corruption_ece']:.4f}" in text
    assert f"was not trained on: {pixelate['mean']:.1f} %" in text and "No kin" not in text


def test_the_mean_without_kin_leaves_out_what_the_training_imitates():
    options = {"corruptions": ("contrast", "pixelate", "fog"), "severities": (2,), "show_progress": False}
    result = evaluate(make_classifier(), make_split(), **options)
    _, pixelate, fog = (scores["mean"] for scores in result["corruptions"].values())
    said = "No kin: mean top-1 under the {} that its training does not imitate: {:.1f} %."
    assert said.format(2, (pixelate + fog) / 2) in evaluation_markdown("a on b", result, kin=["contrast", "snow"])
    assert said.format(1, fog) in evaluation_markdown("a on b", result, trained_on=["contrast"], kin=["pixelate"])
    assert "No kin" not in evaluation_markdown("a on b", result, kin=["snow"])
