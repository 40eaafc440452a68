"""A GPU that is none: a program runs on it as on CUDA, computes on the CPU, and what it would launch is counted.

    with pretended_device(accelerator) as counter:
        trainer = Trainer(accelerator, ...)      # its modules lie on DEVICE
        trainer.take_turn()
        counter.take()                           # kernels, copies, waits

On a CPU `tensor.to(device)` does nothing and reaches no dispatcher. So a `TorchFunctionMode` looks at Python's calls,
too. `x.device` answers DEVICE for what lies there. `to`, `cpu` and `cuda` copy to it and from it, and factories with
`device=` make tensors there. `pin_memory` copies on the host, a `torch.Generator` of DEVICE is one of the CPU, and a
`torch.Event` is reached at once.
Torch and this package choose as they do on CUDA: optimizers and the clipping of gradients use foreach, and losses are
not looked at in each turn.

What is not seen:
    - What happens within an aten call: a convolution that changes its layout, a sort of several kernels.
    - Autocast: the CPU has none for CUDA, so turns are counted in float32.
    - torch.compile and CUDA graphs: turns are counted as they are written.
    - `x.device` and `x.to` within functions that torch itself has in Python (`torch.nn.functional`, `backward`) and in
      backward passes written in Python: tensors that they make lie where their arguments do.
    - That the host waits for an event: it waits for what was queued before it alone, as in `data.transfer.read_later`.
    - Streams and events of `torch.cuda`, and what else asks for a CUDA device itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hf_transinv.benchmark.launch_count import LaunchCounter, tensors_in

DEVICE = torch.device("cuda", 0)
_HOST = torch.device("cpu")
_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


@contextmanager
def pretended_device(accelerator: Accelerator | None = None) -> Iterator[LaunchCounter]:
    """Within, DEVICE may be used as a GPU, and an accelerator on the CPU is on it; yields the counter."""
    counter = LaunchCounter()
    group = torch._C._group_tensors_by_device_and_dtype  # by which foreach is chosen

    def group_by_pretended(tensors: list[list[Tensor | None]], *options: Any) -> dict[tuple, Any]:
        found = group(tensors, *options)
        return {(_device_of(lists[0][0], counter), dtype): (lists, at) for (_, dtype), (lists, at) in found.items()}

    with (
        _replaced(torch._C, "_group_tensors_by_device_and_dtype", group_by_pretended),
        _replaced(torch, "Generator", _Generator),
        _replaced(torch, "Event", _Event),
        _accelerated() if accelerator else nullcontext(),
        counter,
        _PretendedDevice(counter),
    ):
        yield counter


class _Generator(torch.Generator):
    """On the CPU, wherever it is said to be."""

    def __new__(cls, device: torch.device | str = _HOST) -> "_Generator":
        return cast(Any, super()).__new__(cls, _HOST)

    def __init__(self, device: torch.device | str = _HOST) -> None:
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._device


class _Event:
    """A mark in the queue, which the device has reached as soon as it is set."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def record(self) -> None:
        """Set it."""

    def synchronize(self) -> None:
        """Wait for it."""


class _PretendedDevice(TorchFunctionMode):
    """What Python's calls of torch do where a tensor of theirs lies on DEVICE.

    Args:
        counter: knows where tensors lie.
    """

    def __init__(self, counter: LaunchCounter) -> None:
        super().__init__()
        self.counter = counter
        self._own: dict[Any, Callable[..., Any]] = {
            _getter("device"): lambda tensor, *_: _device_of(tensor, counter),
            _getter("is_cpu"): lambda tensor, *_: not counter.holds(tensor),
            _getter("is_cuda"): lambda tensor, *_: counter.holds(tensor),
            Tensor.to: self._to,
            Tensor.cpu: lambda tensor, **options: self._move(tensor, False, **options),
            Tensor.cuda: lambda tensor, device=DEVICE, *flags, **options: self._to(tensor, DEVICE, *flags, **options),
            Tensor.pin_memory: lambda tensor, *_: counter.pin(tensor.clone()),
            Tensor.is_pinned: lambda tensor, *_: counter.is_pinned(tensor),
            Tensor.tolist: self._tolist,
            Tensor.numpy: self._on_host_alone(Tensor.numpy),
            Tensor.__array__: self._on_host_alone(Tensor.__array__),
            Tensor.__deepcopy__: self._deepcopy,
            F.one_hot: self._one_hot,
            **{function: self._maker_from_data(function) for function in _FROM_DATA},
        }

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._own:
            return self._own[func](*args, **kwargs)
        pins, device = kwargs.pop("pin_memory", False), kwargs.get("device")
        if device is None:
            forced, makes = None, any(map(self.counter.holds, tensors_in((args, kwargs))))
        else:
            forced = makes = _is_there(device)
            kwargs["device"] = _HOST
        with self.counter.making(makes, forced):
            made = func(*args, **kwargs)
        return self.counter.pin(made) if pins else made

    def _to(self, tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        """`Tensor.to` in all its forms: (device, dtype), (dtype) or (other), then non_blocking and copy."""
        flags = [value for value in given if isinstance(value, bool)]
        options |= dict(zip(("non_blocking", "copy"), flags, strict=False))
        for value in [*given, options.pop("other", None)]:
            if isinstance(value, Tensor):
                options |= {"device": _device_of(value, self.counter), "dtype": value.dtype}
            elif isinstance(value, torch.dtype):
                options["dtype"] = value
            elif isinstance(value, torch.device | str | int) and not isinstance(value, bool):
                options["device"] = value
        device = options.pop("device", None)
        return self._move(tensor, self.counter.holds(tensor) if device is None else _is_there(device), **options)

    def _move(
        self,
        tensor: Tensor,
        to_device: bool,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
        copy: bool = False,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> Tensor:
        counter, dtype = self.counter, dtype or tensor.dtype
        if counter.holds(tensor) == to_device:
            return tensor.to(dtype, copy=copy, memory_format=memory_format)
        counter.note_copy(tensor, to_device, non_blocking)
        # A copy that is not waited for is converted on the device, another one before it or after it on the host.
        first = tensor.dtype if to_device and non_blocking else dtype
        with counter.switched_off():
            moved = tensor.to(first, copy=True, memory_format=memory_format)
        return counter.send(moved).to(dtype) if to_device else moved

    def _tolist(self, tensor: Tensor) -> Any:
        if self.counter.holds(tensor):
            self.counter.note_wait("tolist")
        return tensor.tolist()

    def _on_host_alone(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(tensor: Tensor, *args: Any, **options: Any) -> Any:
            if self.counter.holds(tensor):
                raise TypeError(f"a tensor on {DEVICE} cannot become a NumPy array: copy it to the host first")
            return function(tensor, *args, **options)

        return checked

    def _deepcopy(self, tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        """Copies storages past the dispatcher."""
        copied = Tensor.__deepcopy__(tensor, memo)
        return self.counter.send(copied) if self.counter.holds(tensor) else copied

    def _one_hot(self, tensor: Tensor, num_classes: int = -1) -> Tensor:
        """On the CPU alone torch checks the range, which would be read as waits."""
        if not self.counter.holds(tensor) or num_classes < 1:
            return F.one_hot(tensor, num_classes)
        with self.counter.making(True):
            made = torch.zeros(*tensor.shape, num_classes, dtype=torch.int64)
            return made.scatter_(-1, tensor.unsqueeze(-1), 1)

    def _maker_from_data(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`torch.tensor` and the like: made on the host and copied, which is waited for."""

        def make(
            *args: Any, device: torch.device | str | None = None, pin_memory: bool = False, **options: Any
        ) -> Tensor:
            first = args[0] if args and isinstance(args[0], Tensor) else None
            there = first is not None and self.counter.holds(first) if device is None else _is_there(device)
            made = self._move(function(*args, **options), there)
            return self.counter.pin(made) if pin_memory else made

        return make


def _getter(name: str) -> Callable[..., Any]:
    return getattr(Tensor, name).__get__


def _device_of(tensor: Tensor | None, counter: LaunchCounter) -> torch.device:
    return DEVICE if tensor is not None and counter.holds(tensor) else _HOST


def _is_there(device: torch.device | str | int) -> bool:
    return isinstance(device, int) or torch.device(device).type == DEVICE.type


@contextmanager
def _accelerated() -> Iterator[None]:
    """Let accelerators be on DEVICE; accelerate copies the second state to the first whenever it asks for that."""
    with _replaced(AcceleratorState(), "device", DEVICE), _replaced(PartialState(), "device", DEVICE):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
