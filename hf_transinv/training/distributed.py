"""How the players of a run lie on its processes: whole on each of them (DDP), or in shards (FSDP2).

Replicated, only the gradients of the player whose turn it is are summed; the others are called unwrapped and frozen.

Sharded are the networks of classifiers, each with its optimizer in an `Accelerator.prepare` of its own (accelerate
takes one model per call). A learned augmentation is small: it stays whole and its gradients are averaged by DDP. So do
the averages of the EMA teacher, which gather the student's weights once a step. What a sharded network writes and
reads as its state is whole, and so are its optimizer's tensors, so that a checkpoint does not know how many processes
there were. The calls that gather are made by all processes together.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier


def to_device(module: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    """Move a module in place, its convolutions in a memory format."""
    module.to(device).to(memory_format=layout)


class Placement:
    """Puts players where the accelerator wants them.

    Args:
        accelerator: device and processes; shards when it was launched with FSDP2.
        layout: memory format of networks that are not sharded.
        sync_batchnorm: let BatchNorm compute the statistics of the batches of all processes together.

    Raises:
        InputError: BatchNorm cannot be synchronised on this device.
    """

    def __init__(self, accelerator: Accelerator, layout: torch.memory_format, sync_batchnorm: bool) -> None:
        self.accelerator, self.layout = accelerator, layout
        self.syncs_batchnorm = sync_batchnorm and accelerator.num_processes > 1
        self._outlines: dict[Classifier, nn.Module] = {}  # of what is sharded, without weights
        if accelerator.is_fsdp2:
            # Weights stay float32 and autocast chooses, as without shards: BatchNorm takes no bfloat16 weights beside
            # its float32 statistics.
            accelerator.state.fsdp_plugin.mixed_precision_policy = None
        if self.syncs_batchnorm and accelerator.device.type == "cpu":
            raise InputError(
                "sync_batchnorm: torch's SyncBatchNorm works on GPUs only, and this run is on the CPU; leave it out "
                "(each process then normalises by its own images), or choose a student without BatchNorm"
            )

    def move(self, name: str, player: nn.Module, is_network: bool) -> None:
        """Bring a player to the device, before its optimizer is built; one that is sharded goes there in shards.

        Args:
            name: of the player, for the error.
            player: a network, or a learned augmentation.
            is_network: networks are sharded, augmentations stay whole.

        Raises:
            InputError: it is to be sharded and is no Classifier.
        """
        is_sharded = self.accelerator.is_fsdp2 and is_network
        if is_sharded and not isinstance(player, Classifier):
            raise InputError(
                f"FSDP2 shards classifiers, and this method trains a {type(player).__name__} as its {name}: launch it "
                "with one GPU or with MULTI_GPU (DDP)"
            )
        if self.syncs_batchnorm and is_network:
            convert_sync_batchnorm(player)
        if not is_sharded:
            to_device(player, self.accelerator.device, self.layout)

    def prepare(
        self, player: nn.Module, optimizer: torch.optim.Optimizer, is_network: bool
    ) -> tuple[nn.Module, AcceleratedOptimizer]:
        """The player as it is called in its own turn, and its optimizer."""
        accelerator = self.accelerator
        if not accelerator.is_fsdp2:
            net, optimizer = accelerator.prepare(player, optimizer)
            if isinstance(net, DistributedDataParallel) and is_network:
                # DDP would send the first process's buffers before each forward pass; the trainer does, once per step.
                net.broadcast_buffers = False
            return net, optimizer
        if not is_network:
            devices = None if accelerator.device.type == "cpu" else [accelerator.device]
            replica = DistributedDataParallel(player, device_ids=devices)
            return replica, accelerator.prepare_optimizer(optimizer)
        assert isinstance(player, Classifier)  # `move` refuses others
        self._outlines[player] = copy.deepcopy(player.network).to("meta")
        network, optimizer = accelerator.prepare(player.network, optimizer)
        # accelerate keeps the weights of the root and of the last layer gathered after a forward pass. One that no
        # backward pass follows (an answer to another player) would leave them so, frozen, for the network's own turn.
        network.set_reshard_after_forward(True)
        network.register_state_dict_post_hook(_gather_state)
        network.register_load_state_dict_pre_hook(_shard_state)
        return player.to(accelerator.device), optimizer

    def gather(self) -> None:
        """Make sharded networks whole again on every process, for evaluation and export; the training is over."""
        for player, outline in self._outlines.items():
            network, device = player.network, self.accelerator.device
            outline.to_empty(device=device)
            outline.load_state_dict(network.state_dict())
            buffers = dict(network.named_buffers())  # also those that are no part of the state
            for name, buffer in outline.named_buffers():
                buffer.copy_(buffers[name])
            player.network = outline.train(network.training)
        self._outlines.clear()


@contextlib.contextmanager
def without_sync(net: nn.Module) -> Iterator[None]:
    """Let gradients add up on each process by itself; they are summed over processes by the next backward pass."""
    sharded = [module for module in net.modules() if isinstance(module, FSDPModule)]
    with net.no_sync() if isinstance(net, DistributedDataParallel) else contextlib.nullcontext():
        for module in sharded:
            module.set_requires_gradient_sync(False, recurse=False)
        try:
            yield
        finally:
            for module in sharded:
                module.set_requires_gradient_sync(True, recurse=False)


def gather_objects(value: Any, accelerator: Accelerator) -> list[Any]:
    """One object of each process, in their order."""
    if accelerator.num_processes == 1:
        return [value]
    gathered: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def whole(value: Any) -> Any:
    """A tensor gathered to the CPU where it is a shard, and as it is otherwise; also within dicts and lists."""
    if isinstance(value, DTensor):
        return cast(DTensor, value.detach()).full_tensor().cpu()
    if isinstance(value, dict):
        return {key: whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list) else value


def optimizer_shards(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole optimizer state, cut as the parameters of this optimizer are.

    Raises:
        InputError: it is not of these parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = state.get("state")
    if not isinstance(held, dict) or not set(held) <= set(range(len(parameters))):
        raise InputError(f"an optimizer's state is not that of {len(parameters)} parameters")
    for index, of_one in held.items():
        for value in of_one.values() if isinstance(of_one, dict) else [of_one]:
            if not isinstance(of_one, dict) or (
                isinstance(value, Tensor) and value.shape not in (parameters[index].shape, ())
            ):
                raise InputError(f"an optimizer's state of parameter {index} does not fit its shape")
    cut = {
        index: {name: _cut_like(value, parameters[index]) for name, value in of_one.items()}
        for index, of_one in state["state"].items()
    }
    return {**state, "state": cut}


def _cut_like(value: Any, parameter: Tensor) -> Any:
    """The shard of a whole tensor of the parameter's shape; anything else stays."""
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    # Every process has read the whole tensor: each keeps its part, and nothing is sent.
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _gather_state(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[name] = whole(state[name])


def _shard_state(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name, parameter in module.named_parameters():
        if prefix + name in state:
            state[prefix + name] = _cut_like(state[prefix + name], parameter)
