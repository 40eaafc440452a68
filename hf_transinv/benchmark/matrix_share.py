"""What share of a device's matrix peak turns reach: their FLOPs in a second over those of large matrix products.

Both are measured on the device at hand. A measured peak lies below the one of the data sheet, so a share of it lies
above the share of that. FLOPs are those of convolutions and matrix products, forward and backward, of all networks
that a turn asks (`torch.utils.flop_counter`): an addition and a multiplication are two.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import Entry, build_objective, build_trainer, cycle_of
from hf_transinv.benchmark.synthetic import synthetic_split
from hf_transinv.benchmark.timing import Work, measure_in_rounds
from hf_transinv.benchmark.turn_speed import ALL, measure, seconds_an_image
from hf_transinv.objectives.turns import Turn

SIZES = (4096, 8192, 16384)
_BATCHES = 4  # in the data set
_ROUNDS = 3


def measured_peak(device: torch.device, sizes: Sequence[int] = SIZES, seconds: float = 0.1) -> float:
    """FLOP/s of the fastest of some products of square matrices in bf16.

    Args:
        device: that is measured.
        sizes: rows of the matrices.
        seconds: time for each of a few rounds of each size, at least.
    """
    works = {}
    for size in sizes:
        factor = torch.randn(size, size, device=device, dtype=torch.bfloat16)  # zeros would take less power
        works[str(size)] = Work(partial(torch.mm, factor, factor, out=torch.empty_like(factor)), device)
    laps = measure_in_rounds(works, _ROUNDS, seconds, "peak")
    return max(2 * size**3 / min(laps[str(size)]) for size in sizes)


def turn_flops(entry: Entry, config: BenchmarkConfig, accelerator: Accelerator) -> dict[str, float]:
    """FLOPs per image of each kind of turn, by the names of `turn_speed.TurnRow.turn`; means over a cycle."""
    config = replace(config, compile=False)  # the counter does not see into what is compiled
    device = accelerator.device
    split = synthetic_split(_BATCHES * config.batch_size, config.image_size, config.num_classes, config.seed, device)
    objective = build_objective(entry, config, device)
    trainer = build_trainer(objective, config, accelerator, split)
    played: list[tuple[Turn, float]] = []
    for _ in range(cycle_of(entry, config, objective)):
        turn = objective.next_turn(trainer.turn)
        with FlopCounterMode(display=False) as counter:
            trainer.take_turn()
        played.append((turn, float(counter.get_total_flops())))
    accelerator.free_memory()
    # FLOPs in the place of seconds.
    flops = {", ".join(kind): seconds_an_image(played, config.batch_size, kind) for kind, _ in played}
    return flops if len(flops) == 1 else flops | {ALL: seconds_an_image(played, config.batch_size)}


def measure_shares(
    config: BenchmarkConfig, accelerator: Accelerator, peak: float, runs: Sequence[Entry]
) -> list[dict[str, Any]]:
    """`turn_speed.measure`, each row with its FLOPs per image and its share of a peak.

    Args:
        config: of the turns.
        accelerator: says where.
        peak: FLOP/s.
        runs: what is measured; the first is plain training.
    """
    flops = {entry.title: turn_flops(entry, config, accelerator) for entry in runs}
    rows = []
    for row in measure(config, accelerator, runs):
        of_image = flops[row.run][row.turn]
        rows.append({**asdict(row), "flops": of_image, "share": row.images_per_second * of_image / peak})
    return rows
