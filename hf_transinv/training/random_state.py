"""What each process draws by itself, from torch's own generators: dropout and drop path, and nothing else."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hf_transinv.errors import InputError


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of this process's generators."""
    own = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state()
    return own


def restore_random_state(state: Mapping[str, Tensor]) -> None:
    """Sets the generators of this process."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def check_processes(training: Any, processes: int) -> None:
    """Raises InputError when another number of processes wrote a checkpoint's state than there are now."""
    random = training.get("random") if isinstance(training, dict) else None
    if isinstance(random, list) and len(random) != processes:
        raise InputError(f"{len(random)} processes wrote it, this run has {processes}: launch as many")
