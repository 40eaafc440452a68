"""All primitives by name, and the sets that `--primitives` knows."""

from collections.abc import Iterable, Mapping

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.augment.primitives import PAPER_PRIMITIVES, Corruption, Primitive, PrimitiveConfig
from hf_transinv.augment.wide_primitives import WIDE_PRIMITIVES
from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError

PRIMITIVES: Mapping[str, type[Primitive]] = PAPER_PRIMITIVES | WIDE_PRIMITIVES

SETS: Mapping[str, tuple[str, ...]] = {
    "paper": tuple(PAPER_PRIMITIVES),
    "wide": (*PAPER_PRIMITIVES, "colour_matrix", "tone_curve", "elastic", "random_filter", "soft_cutout"),
}
"""What one word stands for."""


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Names of primitives and of sets, such as "wide", -> names of primitives."""
    return tuple(one for name in names for one in SETS.get(name, (name,)))


def check_primitive(name: str) -> None:
    """Refuse a name that is neither a learned primitive nor CORRUPTION:SEVERITY.

    Raises:
        InputError: the name is neither; the message lists the known ones.
    """
    corruption, colon, severity = name.partition(":")
    if colon:
        known = {str(number): number for number in SEVERITIES}
        check_corruption(corruption, (known.get(severity, severity),))
    elif name not in PRIMITIVES:
        raise InputError(
            f"primitive {name!r}: expected some of {', '.join(PRIMITIVES)}, one of the sets {', '.join(SETS)}, or a "
            f"corruption with its severity, such as {CORRUPTIONS[0]}:3{did_you_mean(name, (*PRIMITIVES, *SETS))}"
        )


def build_primitive(name: str, config: PrimitiveConfig) -> Primitive:
    """A primitive by its name: one of `PRIMITIVES`, or CORRUPTION:SEVERITY.

    Raises:
        InputError: the name is neither.
    """
    check_primitive(name)
    corruption, colon, severity = name.partition(":")
    return Corruption(corruption, int(severity)) if colon else PRIMITIVES[name](config)
