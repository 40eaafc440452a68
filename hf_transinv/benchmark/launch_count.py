"""Counts what a program gives to a GPU: kernels, copies from the host, waits. `pretended_device` runs it.

A kernel is an aten call on tensors of the device, as `TorchDispatchMode` sees it below autograd: forward, backward and
optimizer. Calls that only describe memory are none: views (by their schema, a result is the memory of an argument),
allocations, and the others in `_NO_KERNEL`. A call is one kernel, however many its implementation launches. A foreach
call on a list of tensors is one, too; `loop_kernels` counts it once per tensor, as an optimizer would launch that goes
from tensor to tensor. Calls on tensors of the host (what is drawn there) are no kernels.

A wait is what `torch.cuda.set_sync_debug_mode` reports. The host reads a value (item, bool, tolist); or a shape
depends on values (nonzero, unique, masked_select, a boolean index); or a copy is made without `non_blocking`. A tensor
of the host beside the device's among the arguments of a call counts as such a copy. An index is one; CUDA refuses most
others. A single number is none, as it travels with the call.
"""

import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

_NO_KERNEL = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_efficientzerotensor"),
    *("_unsafe_view", "set_", "resize_", "record_stream", "_local_scalar_dense"),
}
_READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_PACKAGE = Path(__file__).parent.parent
_OWN = {__file__, str(Path(__file__).with_name("pretended_device.py"))}


@dataclass
class Count:
    """What was given to the device.

    Attributes:
        kernels: aten calls; a foreach call is one.
        loop_kernels: aten calls; a foreach call is one per tensor.
        copies: from the host to the device.
        waits: of the host for the device.
        places: how often each copy and wait occurred: what it is, file, line and function.
    """

    kernels: int = 0
    loop_kernels: int = 0
    copies: int = 0
    waits: int = 0
    places: Counter[str] = field(default_factory=Counter)


class LaunchCounter(TorchDispatchMode):
    """Knows which tensors lie on the device, and counts while it is entered.

    A tensor lies there if its storage was sent there (`send`), or if it was computed from one that lies there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()
        self._is_off = False
        self._makes = False
        self._forced: bool | None = None
        # The references keep the addresses of freed storages from being used again.
        self._storages: dict[int, StorageWeakRef] = {}
        self._pinned: dict[int, StorageWeakRef] = {}

    def take(self) -> Count:
        """What was counted since this was last called."""
        for known in (self._storages, self._pinned):
            for address in [address for address, reference in known.items() if reference.expired()]:
                del known[address]
        taken, self.count = self.count, Count()
        return taken

    # Where tensors lie

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies on the device."""
        return _address(tensor) in self._storages

    def send(self, tensor: Tensor) -> Tensor:
        """The same tensor, which lies on the device from now on; nothing is counted."""
        return _note_in(self._storages, tensor)

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in pinned memory of the host."""
        return _address(tensor) in self._pinned

    def pin(self, tensor: Tensor) -> Tensor:
        """The same tensor, which lies in pinned memory from now on."""
        return _note_in(self._pinned, tensor)

    @contextmanager
    def making(self, on_device: bool, forced: bool | None = None) -> Iterator[None]:
        """Say where tensors lie that are made within.

        Args:
            on_device: those that no tensor is an argument of.
            forced: all; None: the others lie where their arguments do.
        """
        before = self._makes, self._forced
        self._makes, self._forced = on_device, forced
        try:
            yield
        finally:
            self._makes, self._forced = before

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Nothing is counted within, and what is computed lies on the host."""
        before, self._is_off = self._is_off, True
        try:
            yield
        finally:
            self._is_off = before

    # What is counted

    def note_copy(self, tensor: Tensor, to_device: bool, non_blocking: bool) -> None:
        """Count a copy of a tensor between host and device; of an empty one there is none."""
        if not tensor.numel():
            return
        place = place_in(traceback.walk_stack(sys._getframe()))
        how = "blocking" if not non_blocking else "pinned" if self.is_pinned(tensor) else "unpinned"
        self.count.copies += to_device
        self.count.waits += not non_blocking
        self.count.places[f"{how} copy to {'device' if to_device else 'host'}: {place}"] += 1

    def note_wait(self, what: str) -> None:
        """Count a wait."""
        self.count.waits += 1
        self.count.places[f"{what}: {place_in(traceback.walk_stack(sys._getframe()))}"] += 1

    def _note_kernel(self, tensors: int = 1) -> None:
        self.count.kernels += 1
        self.count.loop_kernels += tensors

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._is_off:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            given = [*tensors_in(args), *tensors_in(kwargs)]
            held = [self.holds(tensor) for tensor in given]
            on_device = self._forced if self._forced is not None else any(held) if given else self._makes
            result = func(*args, **kwargs)
            if on_device:
                own = {_address(tensor) for tensor in given}
                for tensor in tensors_in(result):
                    if _address(tensor) not in own:
                        self.send(tensor)
            name = func._schema.name.split("::")[1]
            if name == "copy_" and held[0] != held[1]:
                self._note_copy_into(*args, **kwargs)
            elif on_device:
                self._note(func, name, given, held, args, kwargs)
        return result

    def _note_copy_into(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> None:
        to_device = self.holds(target)
        self.note_copy(source if to_device else target, to_device, non_blocking)
        if to_device and non_blocking and target.dtype != source.dtype:  # else the host converts before it copies
            self._note_kernel()

    def _note(
        self, func: OpOverload, name: str, given: list[Tensor], held: list[bool], args: tuple, kwargs: dict[str, Any]
    ) -> None:
        if self._reads(func, name, held, args, kwargs):
            self.note_wait(name)
        if _is_view(func) or name in _NO_KERNEL:
            return
        self._note_kernel(len(args[0]) if name.startswith(("_foreach_", "_fused_")) else 1)
        if any(held):
            for tensor, is_held in zip(given, held, strict=True):
                # `where` brings even a number over by itself.
                if not is_held and (tensor.ndim or name == "where"):
                    self.note_copy(tensor, to_device=True, non_blocking=False)

    def _reads(
        self, func: OpOverload, name: str, held: list[bool], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Whether a call waits for values on the device."""
        if name in _INDEXING:
            # A mask is asked for its number of rows, unless it is filled with one value.
            masks = (tensor for tensor in tensors_in(args[1]) if tensor.dtype in (torch.bool, torch.uint8))
            is_filled = "put" in name and args[2].numel() == 1
            return any(map(self.holds, masks)) and not is_filled
        if name == "repeat_interleave" and kwargs.get("output_size") is not None:
            return False
        return any(held) and bool(_READS & set(func.tags))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def _note_in(known: dict[int, StorageWeakRef], tensor: Tensor) -> Tensor:
    address = _address(tensor)
    if address is not None and address not in known:
        known[address] = StorageWeakRef(tensor.untyped_storage())
    return tensor


def _address(tensor: Tensor) -> int | None:
    """Of the storage; None where there is none (sparse tensors)."""
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    try:
        return tensor.untyped_storage()._cdata
    except NotImplementedError:
        return None


def _is_view(func: OpOverload) -> bool:
    if torch.Tag.inplace_view in func.tags:
        return True
    aliases = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)


def place_in(frames: Iterable[tuple[FrameType, int]]) -> str:
    """The first function of this package, as file:line function.

    Args:
        frames: with the line that each is at, the innermost first, as `traceback.walk_stack` gives them.
    """
    for frame, line in frames:
        code = frame.f_code
        if code.co_filename not in _OWN and _PACKAGE in Path(code.co_filename).parents:
            return f"{Path(code.co_filename).relative_to(_PACKAGE)}:{line} {code.co_qualname}"
    return "outside the package"
