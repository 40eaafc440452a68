"""Evaluation against sums taken by hand, and the same digits from one process and from two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hf_transinv
from hf_transinv.augment.corruptions import corrupt
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError
from hf_transinv.evaluation import corruption_markdown, evaluate
from hf_transinv.models.classifier import Classifier


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
    """Top-1 and top-5 in percent and the mean negative log-likelihood, an image at a time, in float64."""
    classifier = classifier.double().eval()
    top1 = top5 = nll = 0
    for image, label in zip(images.double(), labels.tolist(), strict=True):
        with torch.no_grad():
            logits = classifier(image[None])[0].numpy()
        ranks = np.argsort(-logits)
        top1 += ranks[0] == label
        top5 += label in ranks[:5]
        nll += np.log(np.exp(logits).sum()) - logits[label]
    return 100 * top1 / len(labels), 100 * top5 / len(labels), nll / len(labels)


def test_clean_scores_equal_those_by_hand():
    split = make_split()
    result = evaluate(make_classifier(), split, batch_size=10, show_progress=False)
    top1, top5, nll = scores_by_hand(make_classifier(), split.images / 255, split.labels)
    assert result["num_images"] == 23
    assert 0 < top1 < top5 < 100
    assert result["clean"] == pytest.approx({"top1": top1, "top5": top5, "nll": nll}, rel=1e-5)
    assert (result["corruptions"], result["corruption_mean"]) == ({}, None)


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
    for name, row in result["corruptions"].items():
        by_hand = [
            scores_by_hand(make_classifier(), corrupt(split.images / 255, name, severity), split.labels)[0]
            for severity in (1, 4)
        ]
        assert [row["1"], row["4"]] == pytest.approx(by_hand)
        assert row["mean"] == pytest.approx(np.mean(by_hand))
    means = [row["mean"] for row in result["corruptions"].values()]
    assert list(result["corruptions"]) == ["contrast", "pixelate"]
    assert result["corruption_mean"] == pytest.approx(np.mean(means))
    assert (result["severities"], result["seed"]) == ([1, 4], 0)
    assert json.loads(json.dumps(result)) == result


def test_top5_is_left_out_where_it_says_nothing():
    result = evaluate(make_classifier(5), make_split(num_classes=5), show_progress=False)
    assert set(result["clean"]) == {"top1", "nll"}


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
    with pytest.raises(InputError, match=r"label 8, the classifier 7 classes.*num_classes=9"):
        evaluate(classifier, make_split(num_classes=9))


TWO_PROCESSES = """
import json, sys
from accelerate import Accelerator
from test_evaluation import evaluate, make_classifier, make_split

accelerator = Accelerator()
assert accelerator.num_processes == 2
corruptions = ("gaussian_noise", "elastic_transform")
options = dict(corruptions=corruptions, severities=(1, 5), batch_size=10, show_progress=False)
classifier = make_classifier().train()
alone = evaluate(classifier, make_split(), **options)
prepared = accelerator.prepare(classifier)
together = evaluate(prepared, make_split(), accelerator=accelerator, **options)
json.dump([alone, together, prepared.training], open(f"{sys.argv[1]}/{accelerator.process_index}.json", "w"))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def test_two_processes_give_the_digits_of_one(tmp_path):
    """Three batches on two processes, the model wrapped for distributed training and with BatchNorm buffers."""
    (tmp_path / "main.py").write_text(TWO_PROCESSES)
    paths = [str(Path(__file__).parent), str(Path(hf_transinv.__file__).parents[1])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*launcher, str(tmp_path / "main.py"), str(tmp_path)], env=environment, check=True, timeout=120)
    for rank in range(2):
        alone, together, is_training = json.loads((tmp_path / f"{rank}.json").read_text())
        assert alone == together
        assert is_training


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
