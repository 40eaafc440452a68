"""How tensors get to a device, and numbers from it, so that neither waits for the other longer than it must."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; to a GPU it goes from pinned memory, so that the host does not wait."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def send_all(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors on a device; to a GPU all of them go in one copy from pinned memory, as bytes.

    Args:
        tensors: of any shapes and dtypes.
        device: where they go.

    Returns:
        The same, in order; on a GPU they share their memory.
    """
    if device.type != "cuda" or any(tensor.device.type != "cpu" for tensor in tensors):
        return [send(tensor, device) for tensor in tensors]
    # The widest numbers first: each tensor then begins at a multiple of the width of its own.
    places = sorted(range(len(tensors)), key=lambda place: -tensors[place].element_size())
    parts = [tensors[place].flatten().view(torch.uint8) for place in places]
    packed = torch.empty(sum(map(len, parts)), dtype=torch.uint8, pin_memory=True)
    torch.cat(parts, out=packed)
    there = packed.to(device, non_blocking=True).split([len(part) for part in parts])
    found = {place: part.view(tensors[place].dtype) for place, part in zip(places, there, strict=True)}
    return [found[place].view(tensor.shape) for place, tensor in enumerate(tensors)]


def read_later(number: Tensor) -> Callable[[], float]:
    """Begin to copy a number from its device; the answer, when it is called, waits for that copy.

    What the device was given after this call goes on meanwhile: it does not run out of work.

    Args:
        number: one, of any device; its value now counts.
    """
    if number.device.type != "cuda":
        return number.clone().item
    copied = torch.empty_like(number, device="cpu", pin_memory=True).copy_(number, non_blocking=True)
    event = torch.Event(number.device)
    event.record()

    def read() -> float:
        event.synchronize()
        return copied.item()

    return read
