"""What --help says: the flags to know, some by a name, all of them; in lines that fit the terminal."""

import re
from dataclasses import fields

import pytest

from hf_transinv.commands import multi_teacher
from hf_transinv.comparison.plan_reader import CONFIGS
from hf_transinv.config import DataConfig, StudentConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.field_help import FIRST, flat_fields, help_asked
from hf_transinv.objectives.registry import LEARNED, METHODS
from hf_transinv.objectives.transinv import TransInvConfig

FIELDS = {flat.name for group in CONFIGS for flat in flat_fields(group)}


@pytest.fixture(params=[80, 140])
def width(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


@pytest.fixture
def said(capsys):
    """What is printed for some flags of a command that has every field."""

    def of(*flags, start=lambda argv: parse(CONFIGS, argv, description="Do it.\n\ndo --it \\\n    now\n")):
        with pytest.raises(SystemExit) as end:
            start(list(flags))
        assert end.value.code == 0
        return capsys.readouterr().out

    return of


def shown(text):
    return re.findall(r"^  --(\w+)", text, re.MULTILINE)


@pytest.mark.parametrize("flags", [["--help"], ["--help_all"], ["--help", "transinv"]])
def test_no_line_is_wider_than_the_terminal(width, said, flags):
    assert max(map(len, said(*flags).splitlines())) <= width


def test_all_fields_are_in_help_all_with_their_whole_text_values_and_default(width, said):
    text = said("--help_all")
    assert sorted(shown(text)) == sorted(FIELDS | {"config"})
    assert " ".join(text.split()).count("student steps between two measurements on the validation part") == 1
    assert "  --crop {pad,resized,none}\n" in text and "--keep {kl,cross_entropy}" in text
    assert "--flip {true,false}" in text and "--eval_severities {1,2,3,4,5} ..." in text
    assert f"{{{', '.join(METHODS)}}} (default: supervised)" in " ".join(text.split())
    assert "Do it.\n\ndo --it \\\n    now\n" in text


def test_the_first_screen_has_the_flags_to_know_and_what_else_there_is(monkeypatch, said):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["transinv multi-teacher", "--help"])
    text = said(start=lambda _: multi_teacher.main())
    lines = text.splitlines()
    assert lines[0] == "usage: transinv multi-teacher [--FLAG VALUE ...]" and len(lines) <= 72
    assert set(shown(text)) == {"config", *FIRST} & {"config", *FIELDS} - {"rows", "groups", "scale", "seeds"}
    of_methods = {
        flat.name for kind in (*METHODS.values(), *LEARNED.values()) for one in kind.configs for flat in fields(one)
    }
    assert not of_methods & set(re.findall(r"\w+", text))
    for topic in ("data", "student", "train", "method", "policy", "mixing", "output", "methods"):
        assert re.search(rf"^  {topic} +\w+, ", text, re.MULTILINE), topic
    flat = " ".join(text.split())
    assert "(here: model_cards/digits_elastic model_cards/digits_light ema)" in flat  # of its YAML
    assert "(transinv, teachaugment) (here: transinv)" in flat  # of the recipe
    assert "of all random numbers (default: 0)" in flat  # of the dataclass


def test_a_config_shows_what_it_says(said, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("batch_size: 7\nteachers: [a, b]\n")
    flat = " ".join(said("--config", str(path), "--help").split())
    assert "micro- batches (here: 7)" in flat and "(here: a b)" in flat
    path.write_text("batch_sise: 7\n")
    with pytest.raises(InputError, match="did you mean batch_size"):
        parse(CONFIGS, ["--config", str(path), "--help"])


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("transinv", {"tolerance", "primitives", "padding_mode"}, {"ait_lambda", "dataset"}),
        ("ait", {"ait_lambda", "second_augment"}, {"tolerance", "peers"}),
        ("mutual", {"peers"}, {"ait_lambda"}),
        ("data", {"dataset", "flip"}, {"student"}),
        ("randaugment", {"randaugment_ops", "randaugment_space"}, {"augmix_severity"}),
        ("learning_rate", {"learning_rate"}, {"head_learning_rate"}),
    ],
)
def test_a_group_a_method_and_a_flag_are_explained_by_name(said, name, there, absent):
    found = set(shown(said("--help", name)))
    assert there <= found and not absent & found
    assert set(shown(said(f"--help={name}"))) == found


def test_a_name_that_nothing_has_is_refused():
    with pytest.raises(InputError, match="--help transinw: no group, method or flag of that name; did you mean trans"):
        parse(CONFIGS, ["--help", "transinw"])


def test_a_command_of_few_flags_shows_them_in_full(said):
    text = said("-h", start=lambda argv: parse([TransInvConfig], argv, operands="OUT USER/NAME"))
    assert set(shown(text)) == {"config", *(one.name for one in fields(TransInvConfig))}
    assert text.splitlines()[0].endswith(" OUT USER/NAME [--FLAG VALUE ...]")
    assert "The objective [transinv]:\n" in text and "the ones you will need" not in text


def test_help_is_asked_for_among_other_flags():
    asked = {(): None, ("--seed", "1", "-h"): "", ("--help", "--seed", "1"): "", ("--help_all",): "all"}
    assert {argv: help_asked(argv) for argv in asked} == asked
    with pytest.raises(InputError, match="did you mean help_all"):
        parse([DataConfig, StudentConfig], ["--helpall"])
