"""Which turns wait for a CUDA device, and where: `torch.cuda.set_sync_debug_mode` is asked, nothing is pretended.

A cycle of turns before makes what stays and may wait. A cycle under "warn" then lists every wait, and a cycle under
"error" must come to its end. Losses are looked at with each line of metrics only, which single turns do not write.
"""

import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator

from hf_transinv.benchmark.launch_count import place_in
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import Entry, build_objective, build_trainer, cycle_of
from hf_transinv.benchmark.synthetic import synthetic_split

_BATCHES = 4  # in the data set
_SAID = "called a synchronizing CUDA operation"


def waits_of(entry: Entry, config: BenchmarkConfig, accelerator: Accelerator) -> dict[str, Any]:
    """The waits in a cycle of turns.

    Returns:
        "turns": of each kind of turn, by who plays, how often each place waited in one of them: file, line and
        function of this package. "error": the place at which a turn ended under "error"; None: none did.
    """
    split = synthetic_split(
        _BATCHES * config.batch_size, config.image_size, config.num_classes, config.seed, accelerator.device
    )
    objective = build_objective(entry, config, accelerator.device)
    trainer = build_trainer(objective, config, accelerator, split)
    cycle = cycle_of(entry, config, objective)
    for _ in range(cycle):
        trainer.take_turn()
    waits: dict[str, Counter[str]] = {}
    for _ in range(cycle):
        turn = ", ".join(objective.next_turn(trainer.turn))
        with _waits_noted() as places:
            trainer.take_turn()
        waits[turn] = waits.get(turn, Counter()) | places
    error = None
    try:
        with _sync_debug_mode("error"):
            for _ in range(cycle):
                trainer.take_turn()
    except RuntimeError as refused:
        if _SAID not in str(refused):
            raise
        error = place_in(reversed(list(traceback.walk_tb(refused.__traceback__))))
    accelerator.free_memory()
    return {"turns": {turn: dict(places) for turn, places in waits.items()}, "error": error}


@contextmanager
def _waits_noted() -> Iterator[Counter[str]]:
    """Within, waits are warned of; yields how often each place did. Other warnings are shown as ever."""
    places: Counter[str] = Counter()
    show = warnings.showwarning

    def note(message: Any, *where: Any) -> None:
        if _SAID in str(message):
            places[place_in(traceback.walk_stack(sys._getframe(1)))] += 1
        else:
            show(message, *where)

    with warnings.catch_warnings(), _sync_debug_mode("warn"):
        warnings.filterwarnings("always", message=f".*{_SAID}")
        warnings.showwarning = cast(Any, note)
        yield places


@contextmanager
def _sync_debug_mode(mode: str) -> Iterator[None]:
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
