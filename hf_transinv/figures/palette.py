"""One colour, one meaning, in all figures.

    models       the teachers of a run and the models of a report, by their order: Okabe and Ito's palette
    methods      the rows of a comparison: those of `_METHODS` always have the same of these colours
    changes      corruptions and primitives, by their family: Tol's muted colours, none of which is a model's
    neutral      everything else: greys

Figures have an opaque white background, so that they look the same on light and on dark pages. Text in one of these
colours is as much darker as it has to be there (`text_color`). The summary of a run alone, which stands at the top of
a page, is transparent, with a grey that can be read on both.
"""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb

RGB = tuple[float, float, float]
Color = Sequence[float] | np.ndarray

# Okabe and Ito's palette (Color Universal Design, 2008), distinguishable with any colour vision, without its yellow,
# which is too pale for a line. The line style changes when the colours are used up.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

STRONG = "#333333"
"""Of what is looked at first, where no model, method or change has it."""
SOFT = "#8A919B"
"""Of what it is compared with."""
AREA = "#C9CED6"
"""Of bars that carry black text."""
WRONG = "#B3261E"
"""Of wrong answers."""

# Families by what is changed. The benchmark's own four have brightness in the weather, and all the rest in "digital".
_FAMILIES = {
    "#882255": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "#332288": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "random_filter"),
    "#117733": ("snow", "frost", "fog"),
    "#8F8A1B": ("brightness", "contrast", "contrast_brightness", "colour_matrix", "tone_curve"),
    "#44857F": ("elastic_transform", "geometric", "elastic", "soft_cutout"),
    "#8C613C": ("pixelate", "jpeg_compression"),
}
_COLOR_OF = {name: color for color, names in _FAMILIES.items() for name in names}
_METHODS = {
    "fine-tuning": COLORS[6],
    "crop + flip": COLORS[5],
    "TransInv": COLORS[0],
    "AIT": COLORS[1],
    "RandAugment": COLORS[2],
    "AugMix": COLORS[3],
    "distillation": COLORS[4],
}
_METHOD = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in _METHODS))


def luminance(color: Color) -> float:
    """The relative luminance of an sRGB colour, in [0, 1] (WCAG 2).

    Args:
        color: red, green and blue, in [0, 1]; more entries are ignored.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink_on(color: Color) -> str:
    """Black or white, whichever has the larger contrast to a colour: at least 4.5 (WCAG 2) to any."""
    return "white" if 1.05 / (luminance(color) + 0.05) > (luminance(color) + 0.05) / 0.05 else "black"


def text_color(color: str) -> RGB:
    """A colour for text on white: darker, where its contrast would be less than 4.5."""
    red, green, blue = to_rgb(color)
    while luminance((red, green, blue)) > 1.05 / 4.5 - 0.05:
        red, green, blue = 0.95 * red, 0.95 * green, 0.95 * blue
    return red, green, blue


def model_style(index: int) -> tuple[str, str]:
    """Colour and line style of a model by its number; they repeat after 28 models."""
    return COLORS[index % len(COLORS)], LINE_STYLES[index // len(COLORS) % len(LINE_STYLES)]


def change_color(name: str) -> str:
    """The colour of a corruption's or a primitive's family; grey for an unknown one.

    Args:
        name: with underscores or spaces, with or without a severity behind a colon.
    """
    return _COLOR_OF.get(name.partition(":")[0].replace(" ", "_"), SOFT)


def change_styles(names: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and line style of each of several changes: its family's colour, and within it one style after another.

    Where a family has more members than there are styles, or names are unknown, a style of `model_style` that is free.
    """
    styles: list[tuple[str, str]] = []
    others = [model_style(index) for index in range(len(COLORS) * len(LINE_STYLES))]
    for name in names:
        color = change_color(name)
        own = [(color, style) for style in LINE_STYLES if color != SOFT]
        styles.append(next((each for each in (*own, *others) if each not in styles), others[0]))
    return styles


def method_styles(titles: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and marker of each row of a comparison.

    A method of `_METHODS` alone is a disc of its colour. A row that names one ("AIT + TransInv", "TransInv, wide") has
    the colour of the first that it names, with another marker. All others are grey.
    """
    styles: dict[str, tuple[str, str]] = {title: (_METHODS[title], "o") for title in titles if title in _METHODS}
    for title in titles:
        if title not in styles:
            named = _METHOD.search(title)
            colors = ([_METHODS[named[0]]] if named else []) + [SOFT, STRONG]
            choices = [(color, marker) for color in colors for marker in MARKERS[1:]]
            styles[title] = next((one for one in choices if one not in styles.values()), choices[0])
    return [styles[title] for title in titles]
