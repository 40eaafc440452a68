"""The counter of launches, on programs counted by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_transinv.benchmark.pretended_device import DEVICE, pretended_device
from hf_transinv.benchmark.synthetic import synthetic_split

HOST = torch.device("cpu")


@pytest.fixture
def counter():
    with pretended_device() as counting:
        yield counting


def numbers(counter) -> tuple[int, int, int]:
    """Kernels, copies and waits since the last call."""
    count = counter.take()
    return count.kernels, count.copies, count.waits


# Kernels


def test_calls_that_compute_are_kernels(counter):
    x = torch.ones(4, 6, device=DEVICE)
    assert numbers(counter) == (1, 0, 0)
    y = x * 2 + 1
    y.relu_().sum()
    torch.cat([x, y]).clone()
    assert numbers(counter) == (2 + 2 + 2, 0, 0)
    assert x.device == y.device == DEVICE and x.is_cuda and not x.is_cpu


def test_what_describes_memory_is_no_kernel(counter):
    x = torch.empty(4, 6, device=DEVICE)
    x.view(6, 4).T.unsqueeze(0)[:, 1:].expand(5, -1, -1).detach().squeeze_()
    x.chunk(2)
    torch.empty_like(x)
    x.contiguous(), x.to(DEVICE), x.float()
    assert numbers(counter) == (0, 0, 0)
    assert x.reshape(3, 8).double().device == DEVICE  # a conversion
    assert numbers(counter) == (1, 0, 0)


def test_work_on_the_host_is_not_counted(counter):
    x = torch.rand(8)
    order, mask = x.argsort(), x > 0.5
    assert x[mask].device == x[order].device == HOST
    x.sum().item(), x.tolist(), mask.nonzero()
    assert numbers(counter) == (0, 0, 0)


def test_a_step_of_training_by_hand(counter):
    weights = [nn.Parameter(torch.ones(3, device=DEVICE)) for _ in range(2)]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    counter.take()
    total = (weights[0] * weights[1]).sum()  # mul, sum
    assert numbers(counter) == (2, 0, 0)
    total.backward()  # ones_like; the gradient of the sum is a view; two of the product
    assert numbers(counter) == (3, 0, 0)
    optimizer.step()
    count = counter.take()
    assert (count.kernels, count.loop_kernels) == (1, 2)
    assert torch.equal(weights[0].detach().cpu(), torch.full((3,), 1 - 0.1))


def test_momentum_and_clipping_use_foreach_as_on_cuda(counter):
    weights = [nn.Parameter(torch.ones(3, device=DEVICE)) for _ in range(4)]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(2):
        for weight in weights:
            weight.grad = torch.ones(3, device=DEVICE)
        counter.take()
        nn.utils.clip_grad_norm_(weights, 1.0)
        # Norms and scaling by foreach; stack, norm, + 1e-6, reciprocal, * 1.0, clamp.
        clipped = counter.take()
        assert clipped.loop_kernels - clipped.kernels == 2 * 3 and clipped.waits == clipped.copies == 0
        optimizer.step()
        moved = counter.take()
        if step:  # decay, momentum, gradient, parameter
            assert (moved.kernels, moved.loop_kernels, moved.copies, moved.waits) == (4, 16, 0, 0)


def test_adam_counts_its_steps_on_the_host(counter):
    weight = nn.Parameter(torch.ones(3, device=DEVICE))
    optimizer = torch.optim.AdamW([weight])
    for _ in range(2):
        weight.grad = torch.ones(3, device=DEVICE)
        optimizer.step()
        count = counter.take()
    assert count.copies == count.waits == 0 and count.kernels == count.loop_kernels > 5


def test_what_torch_makes_within_a_call_lies_on_the_device(counter):
    x = torch.ones(4, 3, device=DEVICE)
    counter.take()
    kept = torch.where(x > 0, x, 0.0)  # the comparison, the number as a tensor, where
    assert kept.device == DEVICE and numbers(counter) == (3, 0, 0)
    hot = F.one_hot(x[:, 0].long(), 5)  # the conversion, zeros, scatter
    assert hot.device == DEVICE and numbers(counter) == (3, 0, 0)
    assert hot.tolist() == [[0, 1, 0, 0, 0]] * 4


def test_calls_under_vmap_are_those_of_the_whole(counter):
    stacked, x = torch.ones(3, 5, 2, device=DEVICE), torch.ones(7, 5, device=DEVICE)
    counter.take()
    answers = torch.vmap(lambda weight: (x @ weight).relu().to(x.device))(stacked)
    count = counter.take()
    assert answers.device == DEVICE and answers.shape == (3, 7, 2)
    assert 2 <= count.kernels <= 4 and count.copies == count.waits == 0


def test_a_generator_of_the_device_draws_there(counter):
    drawn = [
        torch.rand(4, generator=torch.Generator(DEVICE).manual_seed(3), device=DEVICE),
        torch.empty(4, device=DEVICE).uniform_(generator=torch.Generator("cuda").manual_seed(3)),
    ]
    assert numbers(counter) == (2, 0, 0) and drawn[0].device == drawn[1].device == DEVICE
    assert drawn[0].tolist() == drawn[1].tolist() == torch.rand(4, generator=torch.Generator().manual_seed(3)).tolist()
    assert torch.Generator(DEVICE).device == DEVICE and torch.Generator().device == HOST


# Copies


def test_copies_from_the_host_wait_unless_they_are_asked_not_to(counter):
    x = torch.ones(4)
    assert x.to(DEVICE).device == x.cuda().device == x.to(torch.empty(1, device=DEVICE)).device == DEVICE
    assert numbers(counter) == (0, 3, 3)
    assert x.to(DEVICE, non_blocking=True).device == DEVICE and x.device == HOST
    assert numbers(counter) == (0, 1, 0)
    x.to(DEVICE, torch.float64)  # converted on the host
    assert numbers(counter) == (0, 1, 1)
    assert x.to(DEVICE, torch.float64, True).dtype == torch.float64  # converted on the device
    assert numbers(counter) == (1, 1, 0)
    torch.empty(4, device=DEVICE).copy_(x)
    torch.empty(4, device=DEVICE).copy_(x, non_blocking=True)
    assert numbers(counter) == (0, 2, 1)
    x[:0].to(DEVICE)  # nothing to copy
    torch.tensor([1.0, 2.0], device=DEVICE)
    assert numbers(counter) == (0, 1, 1)


def test_modules_are_copied_tensor_by_tensor(counter):
    network = nn.BatchNorm1d(3).to(DEVICE)  # weight, bias, mean, variance, number of batches
    assert numbers(counter) == (0, 5, 5)
    network.to(DEVICE)
    copied = copy.deepcopy(network)
    counter.take()
    assert copied(torch.rand(4, 3, device=DEVICE)).device == DEVICE
    assert numbers(counter) == (3, 0, 0)  # rand, one batch more, normalisation


def test_a_tensor_of_the_host_beside_the_devices_is_copied_unless_it_is_a_number(counter):
    x, order = torch.ones(4, device=DEVICE), torch.tensor([3, 1])
    counter.take()
    assert x[order].device == DEVICE
    assert numbers(counter) == (1, 1, 1)
    x * torch.tensor(2.0)
    assert numbers(counter) == (1, 0, 0)
    torch.where(x > 0, x, torch.tensor(2.0))  # the comparison, where
    assert numbers(counter) == (2, 1, 1)


def test_copies_to_the_host_wait(counter):
    x = torch.ones(4, device=DEVICE)
    counter.take()
    assert x.cpu().device == x.to("cpu").device == HOST
    assert numbers(counter) == (0, 0, 2)
    torch.empty(4).copy_(x)
    assert numbers(counter) == (0, 0, 1)
    with pytest.raises(TypeError, match="NumPy"):
        x.numpy()


def test_the_place_says_how_a_copy_is_made(counter):
    x = torch.ones(4)
    x.to(DEVICE), x.to(DEVICE, non_blocking=True)
    for pinned in (x.pin_memory(), torch.ones(4, pin_memory=True)):
        assert pinned.is_pinned() and pinned.to(DEVICE, non_blocking=True).device == DEVICE
    place = "copy to device: outside the package"
    assert counter.take().places == {f"blocking {place}": 1, f"unpinned {place}": 1, f"pinned {place}": 2}
    torch.empty(4, pin_memory=True).copy_(x.to(DEVICE), non_blocking=True)
    assert "pinned copy to host: outside the package" in counter.take().places
    synthetic_split(4, 8, 3, 0, DEVICE)
    (place,) = counter.take().places
    assert place.startswith("blocking copy to device: benchmark/synthetic.py:") and place.endswith(" synthetic_split")


# Waits


READS = {
    "item": lambda x, mask: x.sum().item(),
    "bool": lambda x, mask: bool(mask.all()),
    "int": lambda x, mask: int(x[0]),
    "tolist": lambda x, mask: x.tolist(),
    "nonzero": lambda x, mask: mask.nonzero(),
    "where": lambda x, mask: torch.where(mask),
    "masked_select": lambda x, mask: x.masked_select(mask),
    "unique": lambda x, mask: x.unique(),
    "bincount": lambda x, mask: x.long().bincount(minlength=9),
    "repeat": lambda x, mask: x.repeat_interleave(x.long()),
    "equal": lambda x, mask: torch.equal(x, x + 1),
    "boolean index": lambda x, mask: x[mask],
    "boolean index, written": lambda x, mask: x.index_put_((mask,), torch.zeros(2, device=x.device)),
}
QUIET = {
    "index": lambda x, mask: x[x.long() % 4],
    "number where true": lambda x, mask: x.masked_fill_(mask, 0.0),
    "number at a boolean index": lambda x, mask: x.__setitem__(mask, 0.0),
    "selection": lambda x, mask: x.index_select(0, x.long() % 4),
    "repeat": lambda x, mask: x.repeat_interleave(x.long() * 0 + 1, output_size=4),
    "sort": lambda x, mask: x.sort(),
}


@pytest.mark.parametrize("name", READS)
def test_reading_values_waits_once_on_the_device_and_never_on_the_host(counter, name):
    for device, waits in ((DEVICE, 1), (HOST, 0)):
        x = torch.arange(1.0, 5.0, device=device)
        mask = x > 2
        counter.take()
        READS[name](x, mask)
        assert counter.take().waits == waits, device


@pytest.mark.parametrize("name", QUIET)
def test_other_calls_do_not_wait(counter, name):
    x = torch.arange(1.0, 5.0, device=DEVICE)
    mask = x > 2
    counter.take()
    QUIET[name](x, mask)
    count = counter.take()
    assert (count.waits, count.copies) == (0, 0) and count.kernels > 0
