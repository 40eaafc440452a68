"""All primitives by name, and the sets that `--primitives` knows."""

import re
from collections.abc import Iterable, Mapping

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.augment.fixed_primitives import PRIMITIVE_POLICIES, Corruption, PolicyPrimitive
from hf_transinv.augment.primitives import PAPER_PRIMITIVES, Primitive, PrimitiveConfig
from hf_transinv.augment.wide_primitives import WIDE_PRIMITIVES
from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError

PRIMITIVES: Mapping[str, type[Primitive]] = PAPER_PRIMITIVES | WIDE_PRIMITIVES

KNOWN = (*PRIMITIVES, *PRIMITIVE_POLICIES)
"""Names of primitives; corruptions have their severity besides."""

SETS: Mapping[str, tuple[str, ...]] = {
    "paper": tuple(PAPER_PRIMITIVES),
    "wide": (*PAPER_PRIMITIVES, "colour_matrix", "tone_curve", "elastic", "random_filter", "soft_cutout"),
}
"""What one word stands for."""


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """Names of primitives and of sets, such as "wide", -> names of primitives."""
    return tuple(one for name in names for one in SETS.get(name, (name,)))


def check_primitive(name: str) -> None:
    """Refuse a name that is no learned primitive, no fixed policy that can be one and no CORRUPTION:SEVERITY.

    Raises:
        InputError: the name is none of these; the message lists the known ones.
    """
    corruption, colon, severity = name.partition(":")
    if colon:
        check_corruption(corruption)
        if not re.fullmatch(r"\d(\.\d+)?", severity) or not 0 < float(severity) <= max(SEVERITIES):
            raise InputError(
                f"primitive {name!r}: expected a severity above 0, up to {max(SEVERITIES)}: {corruption}:3, or "
                f"{corruption}:2.4, which is severity 3 for two images in five and 2 for the others"
            )
    elif name not in KNOWN:
        raise InputError(
            f"primitive {name!r}: expected some of {', '.join(KNOWN)}, one of the sets {', '.join(SETS)}, or a "
            f"corruption with its severity, such as {CORRUPTIONS[0]}:3{did_you_mean(name, (*KNOWN, *SETS))}"
        )


def build_primitive(name: str, config: PrimitiveConfig) -> Primitive:
    """A primitive by its name: one of `KNOWN`, or CORRUPTION:SEVERITY.

    Raises:
        InputError: the name is none of these.
    """
    check_primitive(name)
    corruption, colon, severity = name.partition(":")
    if colon:
        return Corruption(corruption, float(severity))
    return PolicyPrimitive(PRIMITIVE_POLICIES[name]()) if name in PRIMITIVE_POLICIES else PRIMITIVES[name](config)
