"""FLOPs of turns beside those counted layer by layer, and the peak by hand."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from hf_transinv.benchmark import matrix_share
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import PLAIN, entries
from hf_transinv.models.classifier import open_classifier

TINY = BenchmarkConfig(student="wrn10_1_cifar", num_classes=3, batch_size=10, inner_steps=2, teacher_counts=(1,))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture(scope="module")
def layers() -> list[int]:
    """FLOPs of one image in each convolution and in the classifier, forward, in order."""
    found = []

    def note(layer: nn.Module, given, answer: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            found.append(2 * answer.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1])
        else:
            found.append(2 * answer.numel() * layer.in_features)

    names = ["a", "b", "c"]
    network = open_classifier(TINY.student, num_classes=3, label_names=names, pretrained=False).eval()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(note)
    network(torch.zeros(1, 3, 32, 32))
    return found


def test_plain_training_is_three_forward_passes_but_for_the_gradient_of_the_image(accelerator, layers):
    plain = entries(TINY)[0]
    assert plain.title == PLAIN and len(layers) > 9
    assert matrix_share.turn_flops(plain, TINY, accelerator) == {"student": 3 * sum(layers) - layers[0]}
    assert matrix_share.turn_flops(plain, replace(TINY, compile=True), accelerator)["student"] > 0


def test_a_cycle_shares_its_turns_out_over_the_students_images(accelerator, layers):
    flops = matrix_share.turn_flops(entries(TINY)[1], TINY, accelerator)
    assert list(flops) == ["student", "augmentation", "all"]
    assert flops["all"] == pytest.approx(flops["student"] + flops["augmentation"] / 2)
    assert flops["augmentation"] > (2 + 3 * 0.8) * sum(layers)


def test_the_peak_is_that_of_the_fastest_product_in_its_fastest_round(monkeypatch):
    laps = {"64": [2.0, 0.5], "128": [4.0, 2.0]}
    monkeypatch.setattr(matrix_share, "measure_in_rounds", lambda works, *_: laps)
    assert matrix_share.measured_peak(CPU, (64, 128)) == max(2 * 64**3 / 0.5, 2 * 128**3 / 2)


def test_a_peak_is_measured():
    assert 1e6 < matrix_share.measured_peak(CPU, (64,), 1e-4) < 1e15
