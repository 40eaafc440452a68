"""Fixed augmentation policies by name. Learned ones are in `augment.learned` and `augment.teach_augmentation`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hf_transinv.augment.policies.augmix import AugMix
from hf_transinv.augment.policies.autoaugment import POLICIES as AUTOAUGMENT_POLICIES
from hf_transinv.augment.policies.autoaugment import AutoAugment
from hf_transinv.augment.policies.corruption import CorruptionConfig, RandomCorruption
from hf_transinv.augment.policies.cutout import Cutout
from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.augment.policies.jitter import ColorJitter, RandomGrayscale
from hf_transinv.augment.policies.pad_crop import PadCrop
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.policies.prime import Prime
from hf_transinv.augment.policies.randaugment import RandAugment
from hf_transinv.augment.policies.spaces import RANDAUGMENT_SPACES
from hf_transinv.augment.policies.strong import StrongAugment
from hf_transinv.augment.policies.trivialaugment import TrivialAugment
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.config.checks import check_choices, choice, did_you_mean
from hf_transinv.errors import InputError


@dataclass
class PolicyConfig:
    """The fixed augmentation policies.

    Attributes:
        randaugment_ops: N, operations per image.
        randaugment_magnitude: M, from 0 to 30.
        randaugment_space: whose interpretation of M: paper, torchvision or timm.
        autoaugment_policy: cifar10 or imagenet.
        augmix_severity: largest level of an operation of AugMix, up to 10.
        strong_magnitude: of the policy strong: 0 to 10, where 10 destroys the image.
        cutout_size: side of Cutout's square in pixels, even.
        grayscale_probability: share of the images that are turned grey.
        jitter_bias: of colour jitter: largest distance of the factors of brightness, contrast and saturation from 1.
        corruption_policy: of the policy corruption.
        primitive: of the policy fixed_aug.
    """

    randaugment_ops: int = 2
    randaugment_magnitude: float = 14.0
    randaugment_space: str = choice("paper", RANDAUGMENT_SPACES)
    autoaugment_policy: str = choice("cifar10", AUTOAUGMENT_POLICIES)
    augmix_severity: float = 3.0
    strong_magnitude: float = 3.0
    cutout_size: int = 16
    grayscale_probability: float = 0.1
    jitter_bias: float = 0.1
    corruption_policy: CorruptionConfig = field(default_factory=CorruptionConfig)
    primitive: PrimitiveConfig = field(default_factory=PrimitiveConfig)

    def __post_init__(self) -> None:
        check_choices(self)


_BUILDERS: dict[type[Policy], Callable[[PolicyConfig], Policy]] = {
    Cutout: lambda config: Cutout(config.cutout_size),
    RandAugment: lambda config: RandAugment(
        config.randaugment_ops, config.randaugment_magnitude, config.randaugment_space
    ),
    AutoAugment: lambda config: AutoAugment(config.autoaugment_policy),
    TrivialAugment: lambda config: TrivialAugment(),
    AugMix: lambda config: AugMix(config.augmix_severity),
    Prime: lambda config: Prime(),
    StrongAugment: lambda config: StrongAugment(config.strong_magnitude),
    FixedAug: lambda config: FixedAug(config.primitive),
    RandomCorruption: lambda config: config.corruption_policy.policy(),
    PadCrop: lambda config: PadCrop(),
    RandomGrayscale: lambda config: RandomGrayscale(config.grayscale_probability),
    ColorJitter: lambda config: ColorJitter(config.jitter_bias),
}
POLICIES: Mapping[str, type[Policy]] = {policy.name: policy for policy in _BUILDERS}
"""The fixed policies by the names of `--augment`."""


def build_policies(names: Sequence[str], config: PolicyConfig) -> tuple[Policy, ...]:
    """The policies of these names, to be applied one after another.

    Raises:
        InputError: a name is unknown, or an option is out of range.
    """
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        near = did_you_mean(unknown[0], POLICIES)
        raise InputError(f"policy {', '.join(unknown)}: expected some of {', '.join(POLICIES)}{near}")
    return tuple(_BUILDERS[POLICIES[name]](config) for name in names)


__all__ = ["POLICIES", "CorruptionConfig", "Policy", "PolicyConfig", "RandomCorruption", "build_policies"]
