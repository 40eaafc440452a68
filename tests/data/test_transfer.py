"""How tensors get to a device: what arrives, in how many copies, and that nothing waits."""

import pytest
import torch

from hf_transinv.benchmark.pretended_device import DEVICE, pretended_device
from hf_transinv.data.transfer import read_later, send_all

HOST = torch.device("cpu")


def some():
    """Of every width, also none, a single one, and one whose memory is not in order."""
    return [
        torch.tensor([True, False, True]),
        torch.rand(3, 5, dtype=torch.float64).t(),
        torch.arange(7, dtype=torch.uint8),
        torch.empty(0, 3),
        torch.tensor(2.5),
        torch.randint(9, (2, 1, 3)).expand(2, 4, 3),
        torch.rand(3).half(),
    ]


def test_all_go_in_one_copy_and_arrive_as_they_were():
    given = some()
    with pretended_device() as counter:
        found = send_all(given, DEVICE)
        count = counter.take()
        assert (count.kernels, count.copies, count.waits) == (0, 1, 0)
        assert all(tensor.device == DEVICE for tensor in found)
        assert all(tensor is again for tensor, again in zip(found, send_all(found, DEVICE), strict=True))
    for tensor, expected in zip(found, given, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


def test_on_the_host_they_are_the_same_tensors():
    given = some()
    assert all(tensor is one for tensor, one in zip(send_all(given, HOST), given, strict=True))


@pytest.mark.parametrize("device", [HOST, DEVICE])
def test_a_number_is_read_as_it_was(device):
    with pretended_device() as counter:
        number = torch.tensor(2.5, device=device)
        counter.take()
        read = read_later(number)
        number.zero_()
        assert read() == 2.5 and counter.take().waits == 0
