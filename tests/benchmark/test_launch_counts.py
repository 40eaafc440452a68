"""What turns launch: the counter on programs counted by hand, and what every method may launch, copy and wait for."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from hf_transinv.benchmark import launch_counts
from hf_transinv.benchmark.launch_counts import Counts, LaunchCounter
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import Entry
from hf_transinv.benchmark.synthetic import synthetic_split
from hf_transinv.objectives.registry import LEARNED, METHODS

# Waits in any turn that are still there: TransInv's p, q, r are sampled from on the host, once per augmentation turn.
WAITS = {"transinv": 1, "teachaugment": 4, "hard": 1}


def counts_of(action, *on_device):
    counter = LaunchCounter(on_device)
    with counter.counting() as counts:
        action()
    return counts


def test_operators_on_the_device_count_and_views_do_not():
    x = torch.rand(4, 3)
    assert counts_of(lambda: (x + 1).relu().view(-1).sum(), x) == Counts(kernels=3)


def test_the_host_counts_nothing():
    x = torch.rand(4)
    assert counts_of(lambda: (torch.rand(4) * 2).sum().item(), x) == Counts()


def test_a_tensor_of_the_host_is_copied_once():
    x, y = torch.rand(4), torch.rand(4)
    assert counts_of(lambda: (x + y) * y[:2].sum() + y, x) == Counts(kernels=4, copies=1)


def test_a_single_number_is_no_copy():
    x = torch.rand(4)
    assert counts_of(lambda: x * torch.tensor(2.0), x) == Counts(kernels=1)


@pytest.mark.parametrize("wait", [lambda x: x.sum().item(), lambda x: bool(x[0] > 0), lambda x: x.nonzero()])
def test_what_needs_a_number_of_the_device_waits(wait):
    x = torch.rand(4)
    assert counts_of(lambda: wait(x), x).waits == 1


def test_what_is_back_on_the_host_counts_no_more():
    x = torch.rand(4)
    assert counts_of(lambda: (x * 2).cpu().sum().item(), x) == Counts(kernels=1, waits=1)


def test_an_optimizer_s_kernels_are_told_apart():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.grad = torch.ones(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, foreach=False)
    counts = counts_of(optimizer.step, layer.weight, layer.weight.grad)
    assert (counts.kernels, counts.optimizer) == (1, 1)


CONFIG = BenchmarkConfig(student="wrn10_1_cifar", batch_size=32, num_classes=10, inner_steps=2, methods=("ait",))


def turns_of(method, teachers=1, config=CONFIG):
    device = torch.device("cpu")
    split = synthetic_split(4 * config.batch_size, config.image_size, config.num_classes, 0, device)
    return launch_counts.turns_of(Entry(method, method, teachers), config, Accelerator(cpu=True), split)


@pytest.mark.parametrize("method", [*METHODS, *LEARNED])
def test_no_method_waits_for_the_device_but_where_it_is_known(method):
    assert max(counts.waits for counts in turns_of(method).values()) <= WAITS.get(method, 0)


def test_counts_are_the_same_each_time():
    assert turns_of("transinv") == turns_of("transinv")


def test_a_student_turn_launches_little_more_than_plain_training():
    """WRN-16-2, any number of teachers: at most 1.15 times plain training's."""
    config = BenchmarkConfig(student="wrn16_2_cifar", batch_size=32, inner_steps=2)
    plain = turns_of("supervised", config=config)["student"].kernels
    one, three = (turns_of("transinv", count, config)["student"].kernels for count in (1, 3))
    assert one == three <= 1.15 * plain


def test_the_section():
    text, numbers = launch_counts.section(CONFIG, Accelerator(cpu=True))
    assert [(row["run"], row["turn"]) for row in numbers["launches"]] == [
        ("plain training (crop + flip)", "student"),
        ("AIT", "student"),
    ]
    assert "| AIT | student |" in text and "| 1.00 |" in text
