"""The usual regularisers of fine-tuning: mixed and erased images, weighted and evenly drawn classes."""

from dataclasses import dataclass

from hf_transinv.config.checks import at_least, check_choices, choice
from hf_transinv.errors import InputError


@dataclass
class MixingConfig:
    """Regularisers of the student's turns.

    Attributes:
        mixup: alpha of MixUp, whose share is drawn from Beta(alpha, alpha); 0: no MixUp.
        cutmix: alpha of CutMix, likewise; 0: no CutMix.
        mixup_prob: probability, in (0, 1], that a batch is mixed; default: 1.
        mixup_switch_prob: with both, probability, in (0, 1), of CutMix in place of MixUp; default: 0.5.
        random_erasing: probability, in [0, 1], that a rectangle of an image is erased.
        random_erasing_mode: what the rectangle is filled with: pixel (a random colour for every pixel, the default)
            or const (the mean colour).
        class_weights: balanced: weigh the student's cross-entropy by the inverse frequency of an image's class; the
            mean weight of a training image is 1.
        sampler: balanced: show every class equally often; not for streams.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_prob: float | None = None
    mixup_switch_prob: float | None = None
    random_erasing: float = 0.0
    random_erasing_mode: str | None = choice(None, ("pixel", "const"))
    class_weights: str | None = choice(None, ("balanced",))
    sampler: str | None = choice(None, ("balanced",))

    def __post_init__(self) -> None:
        check_choices(self)
        at_least("mixup", self.mixup, 0)
        at_least("cutmix", self.cutmix, 0)
        if self.mixup_prob is not None:
            if not self.mixes:
                raise InputError("mixup_prob is for mixup or cutmix: give one of them as well, say mixup 0.2")
            if not 0 < self.mixup_prob <= 1:
                raise InputError(f"mixup_prob must be in (0, 1], given {self.mixup_prob}")
        if self.mixup_switch_prob is not None:
            if not (self.mixup and self.cutmix):
                raise InputError("mixup_switch_prob chooses between mixup and cutmix: give both as well")
            if not 0 < self.mixup_switch_prob < 1:
                raise InputError(
                    f"mixup_switch_prob must be in (0, 1), given {self.mixup_switch_prob}: to have one of the two "
                    "alone, leave out the other"
                )
        if not 0 <= self.random_erasing <= 1:
            raise InputError(f"random_erasing must be in [0, 1], given {self.random_erasing}")
        if self.random_erasing_mode is not None and not self.random_erasing:
            raise InputError("random_erasing_mode is for random_erasing: give its probability as well, say 0.25")
        if self.class_weights and self.sampler:
            raise InputError(
                "class_weights balanced and sampler balanced both even out the classes: together they would favour "
                "rare classes; give one of them"
            )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return bool(self.mixup or self.cutmix)

    @property
    def titles(self) -> list[str]:
        """What is done to images, as in the rows of tables."""
        named = {"MixUp": self.mixup, "CutMix": self.cutmix, "random erasing": self.random_erasing}
        return [title for title, value in named.items() if value]

    @property
    def of_classes(self) -> "MixingConfig":
        """What concerns classes alone, for the baselines, whose images stay as they are."""
        return MixingConfig(class_weights=self.class_weights, sampler=self.sampler)
