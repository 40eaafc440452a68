"""How many kernels a turn launches, what it copies to the device, and how often the host waits for it: exact counts.

At the usual sizes a small network on a GPU is bound by launches, so their number beside plain training's tells what a
turn can cost there, on any machine. What is counted is each call of an operator that is no view, where a tensor of the
device takes part.

On a CPU all tensors lie in one memory, so the counter follows which of them would be on a device: networks,
optimizers' states and the data at first, then whatever is computed from those, until `.cpu()` takes it back, which
waits. Any other tensor that meets them would have to be copied, which counts once for each tensor, unless it is a
single number. What is drawn by a generator of the device has no such ancestor: on a CPU it counts as a copy.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import Entry, build_objective, build_trainer, entries
from hf_transinv.benchmark.synthetic import synthetic_split
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.formats.markdown import table
from hf_transinv.training.trainer import Trainer

_NO_KERNEL = ("detach", "empty", "alias", "lift_fresh", "_unsafe_view", "is_same_size", "sym_", "_record_function")
_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal")
NOTE = """\
kernels: calls of operators that are no views. optimizer: those of the optimizers' steps, which go parameter by
parameter on a CPU and many at once on a GPU. time / plain: kernels over those of plain training, with and without the
optimizers' own. copies: tensors that would go to a device, on a CPU with those that a device would draw for itself.
waits: how often the host needs a number of the device."""


@dataclass
class Counts:
    """What a turn launches.

    Attributes:
        kernels: in all.
        optimizer: of them, within optimizers' steps.
        copies: tensors from the host to the device.
        waits: of the host for the device.
    """

    kernels: int = 0
    optimizer: int = 0
    copies: int = 0
    waits: int = 0


class LaunchCounter(TorchDispatchMode):
    """Counts what is launched within it.

    Args:
        on_device: tensors that are on the device, where device and host share a memory.

    Attributes:
        counts: so far; replace it to begin anew.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        super().__init__()
        self.counts = Counts()
        self._within_optimizer = False
        self._marked: dict[int, StorageWeakRef] = {}
        for tensor in on_device:
            self._mark(tensor)

    def _mark(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._marked[storage._cdata] = StorageWeakRef(storage)

    def is_there(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the device, or would be."""
        if tensor.device.type != "cpu":
            return True
        known = self._marked.get(tensor.untyped_storage()._cdata)
        return known is not None and not known.expired()

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """What is launched in the block."""
        self.counts = Counts()
        hooks = (
            register_optimizer_step_pre_hook(lambda *_: self._enter(True)),
            register_optimizer_step_post_hook(lambda *_: self._enter(False)),
        )
        try:
            with _BackToHost(self), self:
                yield self.counts
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, within: bool) -> None:
        self._within_optimizer = within

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in given if self.is_there(tensor)]
        result = func(*args, **(kwargs or {}))
        name = func.__name__.partition(".")[0]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        crosses = any(tensor.device.type != "cpu" for tensor in made) and not there
        if not there and not crosses:
            return result
        for tensor in given:
            if not self.is_there(tensor) and tensor.dim():
                self.counts.copies += 1
                self._mark(tensor)
        for tensor in made:
            self._mark(tensor)
        self.counts.waits += name in _WAITS
        is_view = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
        if not is_view and not name.startswith(_NO_KERNEL):
            self.counts.kernels += 1
            self.counts.optimizer += self._within_optimizer
        return result


class _BackToHost(TorchFunctionMode):
    """Sees `.cpu()`, which is no operator where device and host share a memory."""

    def __init__(self, counter: LaunchCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.cpu and self.counter.is_there(args[0]):
            self.counter.counts.waits += 1
            with _disable_current_modes():
                return args[0].clone() if args[0].device.type == "cpu" else args[0].cpu()
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class LaunchRow:
    """One kind of turn of one run.

    Attributes:
        run: the method.
        turn: who plays.
        counts: the most that a turn of the kind launched.
        ratio: kernels over plain training's.
        ratio_without_optimizer: the same without those of optimizers.
    """

    run: str
    turn: str
    counts: Counts
    ratio: float
    ratio_without_optimizer: float


def section(config: BenchmarkConfig, accelerator: Accelerator) -> tuple[str, dict]:
    """The table as Markdown, and its numbers."""
    rows = measure(config, accelerator)
    return f"{markdown(rows)}\n\n{NOTE}", {"launches": [asdict(row) for row in rows]}


def measure(config: BenchmarkConfig, accelerator: Accelerator) -> list[LaunchRow]:
    """All rows; the first is plain training."""
    split = synthetic_split(
        4 * config.batch_size, config.image_size, config.num_classes, config.seed, accelerator.device
    )
    rows: list[LaunchRow] = []
    for entry in entries(config):
        for turn, counts in turns_of(entry, config, accelerator, split).items():
            plain = rows[0].counts if rows else counts
            own = counts.kernels - counts.optimizer, plain.kernels - plain.optimizer
            rows.append(LaunchRow(entry.title, turn, counts, counts.kernels / plain.kernels, own[0] / own[1]))
        accelerator.free_memory()
    return rows


def turns_of(
    entry: Entry, config: BenchmarkConfig, accelerator: Accelerator, split: ResidentSplit
) -> dict[str, Counts]:
    """The most that a turn of each kind launches in the second cycle: in the first, constants are made."""
    objective = build_objective(entry, config, accelerator.device)
    trainer = build_trainer(objective, config, accelerator, split)
    trainer.losses.looks_at_once = False  # as on a device that it would wait for
    cycle = 2 * config.inner_steps if entry.method == "hard" else len(objective.turns)
    for _ in range(cycle):
        trainer.take_turn()
    counter, most = LaunchCounter(_tensors_of(trainer, split)), dict[str, Counts]()
    for number in range(2 * cycle):
        players = ", ".join(objective.next_turn(trainer.turn))
        with counter.counting() as counts:
            trainer.take_turn()
        if number >= cycle and counts.kernels >= most.get(players, Counts()).kernels:
            most[players] = counts
    return most


def _tensors_of(trainer: Trainer, split: ResidentSplit) -> Iterator[Tensor]:
    """What would be on a device before a turn."""
    yield from (split.images, split.labels)
    for module in (*trainer.modules.values(), *trainer.objective.teachers):
        yield from module.parameters()
        yield from module.buffers()
        yield from (parameter.grad for parameter in module.parameters() if parameter.grad is not None)
    for optimizer in trainer.optimizers.values():
        yield from (
            leaf for leaf in tree_leaves(list(optimizer.state.values())) if isinstance(leaf, Tensor) and leaf.dim()
        )


def markdown(rows: Sequence[LaunchRow]) -> str:
    """One line per row."""
    header = ["", "turn", "kernels", "optimizer", "/ plain", "/ plain, without optimizers", "copies", "waits"]
    lines = [
        [
            row.run,
            row.turn,
            f"{row.counts.kernels:,}",
            f"{row.counts.optimizer:,}",
            f"{row.ratio:.2f}",
            f"{row.ratio_without_optimizer:.2f}",
            str(row.counts.copies),
            str(row.counts.waits),
        ]
        for row in rows
    ]
    return table(header, lines, numeric_from=2)
