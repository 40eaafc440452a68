"""The methods by name. A method's facts are on its class; one that is missing is an error here.

To add a method, add a line below.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from hf_transinv.objectives.adversarial import AdversarialAugmentation
from hf_transinv.objectives.augmix_consistency import AugMixConsistency
from hf_transinv.objectives.consistency import ConsistencyTraining
from hf_transinv.objectives.distillation import Distillation
from hf_transinv.objectives.hard import Hard
from hf_transinv.objectives.invariant import InvariantTraining
from hf_transinv.objectives.l2_sp import L2SP
from hf_transinv.objectives.multi_invariant import MultiInvariantTraining
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.paired import PairedTraining
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.teachaugment import TeachAugment
from hf_transinv.objectives.transinv import TransInv

Kind = TypeVar("Kind", bound=Objective)


def by_name(*methods: type[Kind]) -> Mapping[str, type[Kind]]:
    """The classes by their names.

    Raises:
        TypeError: a class does not state what it must, or has the name of another.
    """
    for method in methods:
        missing = [fact for fact in ("name", "title", "summary", "passes") if not hasattr(method, fact)]
        builder = "build_over" if issubclass(method, AdversarialAugmentation) else "build"
        if builder not in vars(method):
            missing.append(builder)
        if missing:
            raise TypeError(f"{method.__name__} does not state its {', '.join(missing)}; see Objective")
    found = {method.name: method for method in methods}
    if len(found) < len(methods):
        raise TypeError(f"two of {', '.join(method.__name__ for method in methods)} have one name")
    return MappingProxyType(found)


METHODS = by_name(
    Supervised,
    AugMixConsistency,
    ConsistencyTraining,
    PairedTraining,
    InvariantTraining,
    MultiInvariantTraining,
    MutualLearning,
    Distillation,
    Hard,
    L2SP,
)
"""What the student minimises, by the names of `--method`."""

LEARNED = by_name(TransInv, TeachAugment)
"""Augmentations that are learned over such a task, by the names of `--augment`."""


def title_of(name: str) -> str:
    """A method in tables."""
    return METHODS[name].title if name in METHODS else LEARNED[name].title
