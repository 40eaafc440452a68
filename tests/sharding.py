"""FSDP2 on the CPU: accelerate shards on GPUs alone, torch wherever its processes can talk."""

from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType


def shard_on_cpu(min_num_params: int = 3000) -> None:
    """Make every Accelerator of this process, one of several on the CPU, what an FSDP2 launch makes it on GPUs."""
    state = Accelerator(cpu=True).state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="size_based_wrap", min_num_params=min_num_params
    )
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
