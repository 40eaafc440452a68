"""What the student's network does not take, refused before any data is read."""

from typing import Any

from torch import nn

from hf_transinv.config import StudentConfig, TrainConfig
from hf_transinv.config.model_args import parse_model_args
from hf_transinv.models.grad_checkpointing import enable_grad_checkpointing
from hf_transinv.models.layer_groups import group_matcher, head_parameters, outline
from hf_transinv.models.network_size import check_patches
from hf_transinv.training.freezing import frozen_names
from hf_transinv.training.optim import network_optimizer


def check_student(names: StudentConfig, train: TrainConfig) -> None:
    """Check options against the student's network, which is built without weights or memory where any are given.

    Args:
        names: the student and how its network is opened.
        train: the loop, with its preset filled in.

    Raises:
        InputError: the network does not take an argument or a size, has no gradient checkpointing, or its layers are
            not known; or timm has no such optimizer.
    """
    network_optimizer(nn.Linear(1, 1), TrainConfig(max_steps=1, optimizer=train.optimizer))
    needs_head = train.head_learning_rate is not None or train.interpolate is not None or train.linear_probe_share
    asked = (names.grad_checkpointing, names.model_args, names.student_size, train.freeze, train.layer_decay)
    if not any((*asked, needs_head)):
        return
    name = names.network_name
    network: Any = outline(name, parse_model_args(names.model_args))
    if getattr(network, "num_classes", 1) < 1:  # of timm, without a head: the student gets one
        network.reset_classifier(2)
    if names.student_size is not None:
        check_patches(network, name, names.student_size)
    if names.grad_checkpointing:
        enable_grad_checkpointing(network, name)
    if train.freeze is not None:
        frozen_names(network, train.freeze)
    if train.layer_decay is not None:
        group_matcher(network)
    if needs_head:
        head_parameters(network)
