"""Which corruptions of the benchmark an augmentation is kin to, and why.

Accuracy under a corruption that training imitates says little about what else a network became invariant to. So tables
show two means: over all corruptions, and over those that no augmentation in the table is kin to.

Every primitive and policy says what it is kin to: corruption -> the reason. The authors of AugMix left out the
operations that overlap with the benchmark, which are those of `KIN_OF_OPERATIONS` (Hendrycks et al., ICLR 2020).
"""

from collections.abc import Iterable, Mapping

from hf_transinv.augment.pil_sorting import Operation

NOISES = ("gaussian_noise", "shot_noise", "impulse_noise")

KIN_OF_OPERATIONS: Mapping[Operation, Mapping[str, str]] = {
    Operation.BRIGHTNESS: {"brightness": "the operation brightness makes images brighter and darker"},
    Operation.CONTRAST: {"contrast": "the operation contrast lowers and raises contrast"},
    Operation.SHARPNESS: {"defocus_blur": "the operation sharpness smooths images below 1"},
}
"""Of operations of PIL, corruption -> the reason; the others are kin to none."""


def kin_of_operations(operations: Iterable[int]) -> dict[str, str]:
    """The kin of a policy that draws among operations of PIL: corruption -> the reason."""
    chosen = [KIN_OF_OPERATIONS.get(Operation(operation), {}) for operation in operations]
    return {name: reason for found in chosen for name, reason in found.items()}


def kin_of_corruption(name: str) -> dict[str, str]:
    """The kin of training under a corruption of the benchmark: corruption -> the reason."""
    words = name.replace("_", " ")
    alike = {other: f"it is noise of each pixel, as {words} is" for other in NOISES} if name in NOISES else {}
    return alike | {name: "training images are corrupted by it"}
