"""What each process draws by itself, from torch's own generators: dropout and drop path, and nothing else.

Everything else that is random in a turn is drawn once for the whole batch (see `trainer`). So a run goes on in another
number of processes as it would have in the old one, unless its networks draw by themselves, or normalise by the images
of their own process.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import Tensor, nn

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier

logger = get_logger(__name__)


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


def fit_processes(
    training: Any, accelerator: Accelerator, networks: Mapping[str, nn.Module], sync_batchnorm: bool
) -> None:
    """Let a checkpoint's state be taken up by another number of processes than wrote it, where that trains the same.

    Args:
        training: the state as it was read; its random states are replaced by as many as there are processes.
        accelerator: says how many.
        networks: that are trained, unwrapped.
        sync_batchnorm: whether BatchNorm normalises by the images of all processes.

    Raises:
        InputError: another student would come out: a network draws random numbers by process or normalises by its
            images; or that cannot be known.
    """
    random, processes = training.get("random") if isinstance(training, dict) else None, accelerator.num_processes
    if not isinstance(random, list) or not random or len(random) == processes:
        return
    for name, network in networks.items():
        if reason := _why_processes_matter(network, accelerator.is_fsdp2, sync_batchnorm):
            raise InputError(
                f"{len(random)} processes wrote it, this run has {processes}: launch as many, since the {name} "
                f"{reason}"
            )
    training["random"] = random[:1] * processes
    logger.info(
        "the checkpoint was written by %d processes and %d go on: the same training, up to the order of summation",
        len(random),
        processes,
    )


def _why_processes_matter(network: nn.Module, is_sharded: bool, sync_batchnorm: bool) -> str | None:
    if is_sharded or not isinstance(network, Classifier):
        return "cannot be asked whether it draws random numbers by itself"
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if not sync_batchnorm and any(isinstance(module, norms) for module in network.modules()):
        return "normalises by the images of each process (BatchNorm without sync_batchnorm)"
    return "draws random numbers in each process (dropout or drop path)" if _draws(network) else None


def _draws(network: Classifier) -> bool:
    """Whether a forward pass in training mode moves torch's generators; they and the network are left as they were."""
    device = network.mean.device
    before = random_state(device)
    with torch.no_grad():
        copy.deepcopy(network).train()(torch.full((2, 3, *network.input_size), 0.5, device=device))
    after = random_state(device)
    restore_random_state(before)
    return any(not torch.equal(after[name], state) for name, state in before.items())
