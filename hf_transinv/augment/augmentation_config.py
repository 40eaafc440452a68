"""The options of the learned augmentation."""

from dataclasses import dataclass, field

from hf_transinv.augment.primitive_sets import KNOWN, SETS, check_primitive, expanded
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.errors import InputError


@dataclass
class AugmentationConfig:
    """The augmentation models: their primitives, the start of p and q, the estimator of the choice.

    Attributes:
        primitives: names of the primitives, in order; paper: the four of the paper; wide: five more; contrast:3 is
            the corruption contrast at severity 3; augmix and other fixed policies are chosen as a whole.
        primitive: what the paper leaves open about the primitives.
        q_init: probability of deforming an image at the start of training.
        estimator: "expectation" (strata: unbiased, one primitive per image) or "gumbel" (the paper's relaxation).
        chain: primitives one after another on each image that is deformed at all. The constraint is on what the whole
            chain does; p is the distribution of each link.
        gumbel_temperature: temperature of the relaxation.
        gumbel_hard: straight through: true samples in the forward pass, the relaxation's gradient.
    """

    primitives: tuple[str, ...] = choice(SETS["paper"], (*SETS, *KNOWN, "CORRUPTION:SEVERITY"), is_closed=False)
    primitive: PrimitiveConfig = field(default_factory=PrimitiveConfig)
    q_init: float = 0.5
    estimator: str = choice("expectation", ("expectation", "gumbel"))
    chain: int = 1
    gumbel_temperature: float = 1.0
    gumbel_hard: bool = True

    def __post_init__(self) -> None:
        self.primitives = expanded(self.primitives)
        if not self.primitives or len(set(self.primitives)) < len(self.primitives):
            raise InputError(f"primitives {list(self.primitives)}: expected some of {list(KNOWN)}, each once")
        for name in self.primitives:
            check_primitive(name)
        if not 0 < self.q_init < 1:
            raise InputError(f"q_init must be between 0 and 1, given {self.q_init}")
        check_choices(self)
        if self.chain < 1:
            raise InputError(f"chain must be at least 1, given {self.chain}")
        if self.chain > 1 and self.estimator == "gumbel":
            raise InputError("chain needs estimator expectation: a relaxed image is a mixture of primitives already")
        if not self.gumbel_temperature > 0:
            raise InputError(f"gumbel_temperature must be positive, given {self.gumbel_temperature}")
