"""The recommended settings of TransInv: what commands start from, and how the paper's own form is kept from them."""

import pytest

from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.experiment.methods import GROUPS
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.recommended import RECOMMENDED, in_words
from hf_transinv.objectives.registry import METHODS

BASE = [
    "--dataset",
    "digits/target",
    "--student",
    "wrn10_1_cifar",
    "--teachers",
    "ema",
    "--augment",
    "transinv",
    "--max_steps",
    "3",
]


def values_of(*flags, defaults=RECOMMENDED):
    groups, _ = parse_run(
        [DataConfig, StudentConfig, TrainConfig, *GROUPS, OutputConfig], [*BASE, *flags], None, "", defaults
    )
    return as_dict(*groups)


def test_they_are_the_defaults_of_the_commands():
    values = values_of()
    wide = values["primitives"]
    assert {name: values[name] for name in RECOMMENDED} == RECOMMENDED | {"primitives": wide}
    assert len(wide) == 9 and values["method"] in METHODS


@pytest.mark.parametrize(
    "form",
    [
        ["--objective", "paper"],
        ["--objective", "normalised"],
        ["--estimator", "gumbel"],
        ["--augment", "teachaugment"],
    ],
)
def test_another_form_estimator_or_augmentation_is_as_the_dataclasses_have_it(form):
    assert values_of(*form) == values_of(*form, defaults=None)


def test_what_is_given_stays():
    given = ["--chain", "3", "--method", "ait", "--tolerance", "0.1"]
    values = values_of(*given)
    assert (values["chain"], values["method"], values["tolerance"]) == (3, "ait", 0.1)
    assert values["tolerance_relative_to"] == "crop" and values["q_init"] == 0.9
    paper = values_of("--objective", "paper", "--inner_steps", "3")
    assert (paper["inner_steps"], paper["chain"], paper["method"]) == (3, 1, "supervised")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], (0.25, "entropy")),
        (["--tolerance", "0.5"], (0.5, "entropy")),
        (["--tolerance_relative_to", "none"], (0.1, "none")),
        (["--tolerance", "0.2", "--tolerance_relative_to", "none"], (0.2, "none")),
        (["--objective", "paper"], (0.1, "none")),
    ],
)
def test_where_images_are_not_cropped_entropy_is_the_measure(given, expected):
    values = values_of("--crop", "none", "--flip", "false", *given)
    assert (values["tolerance"], values["tolerance_relative_to"]) == expected


def test_they_are_said_in_a_line():
    said = in_words(values_of("--chain", "3"), {"chain"})
    assert (
        "as recommended: method paired" in said
        and "primitives wide, chain 3" in said
        and said.endswith("(given: chain)")
    )
    assert "nothing as recommended" in in_words(values_of("--objective", "paper"), {"objective"})
