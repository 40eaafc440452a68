"""How pictures become the squares that a network is evaluated on: a run's export records it, and is measured by it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from hf_transinv.config.checks import at_least, one_of
from hf_transinv.config.data_config import FILTERS, check_crop_pct
from hf_transinv.data.decoding import fit

_LARGEST_SIDE = 8192


@dataclass(frozen=True, order=True)
class EvaluationCut:
    """Shorter side resized, centre cut out. The fields are those of `DataConfig` that decide it, by their names there.

    Attributes:
        image_size: side of the squares, in pixels.
        eval_crop_pct: share of the resized shorter side that the square has, in (0, 1].
        interpolation: by which the shorter side is resized, antialiased: "bilinear" or "bicubic".

    Raises:
        InputError: a field is out of range.
    """

    image_size: int
    eval_crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        at_least("image_size", self.image_size, 1)
        check_crop_pct(self.eval_crop_pct)
        one_of("interpolation", self.interpolation, FILTERS)

    @classmethod
    def recorded(cls, mark: Any) -> "EvaluationCut | None":
        """What the block `hf_transinv` of an export's config.json says; None: it does not say.

        Older exports say the size alone. Such images were cut as by the defaults.
        """
        side = mark.get("image_size") if isinstance(mark, Mapping) else None
        if type(side) is not int or not 1 <= side <= _LARGEST_SIDE:
            return None
        share, name = mark.get("eval_crop_pct"), mark.get("interpolation")
        share = share if type(share) in (int, float) and 0 < share <= 1 else cls.eval_crop_pct
        return cls(side, float(share), name if name in FILTERS else cls.interpolation)

    def overruled(
        self, image_size: int | None, eval_crop_pct: float | None, interpolation: str | None
    ) -> "EvaluationCut":
        """The same with the fields that are given; None: this one's."""
        given: dict[str, Any] = {
            "image_size": image_size,
            "eval_crop_pct": eval_crop_pct,
            "interpolation": interpolation,
        }
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """The fields by their names, for JSON."""
        return asdict(self)

    @property
    def decoding(self) -> dict[str, Any]:
        """The same as options of `ResidentSplit.load`, `SourceSplit` and `export_classifier`."""
        return {
            "image_size": self.image_size,
            "crop_pct": self.eval_crop_pct,
            "interpolation": self.interpolation,
        }

    @property
    def shorter(self) -> int:
        """The resized shorter side, in pixels; timm's rounding."""
        return math.floor(self.image_size / self.eval_crop_pct)

    def __call__(self, image: Tensor) -> Tensor:
        """A picture, uint8 [3, h, w] -> uint8 [3, image_size, image_size]."""
        return fit(image, self.image_size, self.eval_crop_pct, self.interpolation)

    def __str__(self) -> str:
        """For people: "224 px", or "224 px (crop_pct 0.875, bicubic)" where it is not the default."""
        told = [] if self.eval_crop_pct == 1 else [f"crop_pct {self.eval_crop_pct:g}"]
        told += [] if self.interpolation == "bilinear" else [self.interpolation]
        return f"{self.image_size} px" + (f" ({', '.join(told)})" if told else "")
