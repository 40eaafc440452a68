"""Command lines and YAMLs: every value is of its field's type, or the error names what is wrong."""

import math
import types
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hf_transinv.augment.learned import AugmentationConfig
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse, read_fields
from hf_transinv.experiment.methods import MethodConfig
from hf_transinv.objectives.transinv import TransInvConfig
from tests.fuzz import STRANGE, damaged_bytes, examples, result_or_error

GROUPS = [DataConfig, StudentConfig, TrainConfig, MethodConfig, OutputConfig]
LEAST = {"student": "test_vit", "max_steps": 3}
HINTS = {name: hint for group in GROUPS for name, hint in typing.get_type_hints(group).items()}
FIELDS = st.sampled_from(sorted(HINTS))
ODD_TEXT = st.sampled_from(
    [
        *("", "null", "~", "1", "-1", "1e400", ".nan", "nan", "-inf", "0x10", "yes", "[a, b]", "{a: b}", "&a b", "*a"),
        *("9" * 5000, "x" * 5000, "!!python/object/apply:os.system [true]", "!!binary aGk=", "2001-99-99", "- a"),
        *("a: b", "@file", "%", "`", "'", '"', "\0", "\x1b[31m", "a\nb", "\udc80", "😀", "../..", "--seed"),
        *("teacher:1", "teacher:²", "teacher:" + "9" * 5000),
    ]
)
VALID = {int: "2", float: "0.5", str: "none", bool: "true"}


def fits(value: object, hint: object) -> bool:
    """Whether a value is of a type, as the fields of the configs are annotated."""
    if isinstance(hint, types.UnionType):
        return any(fits(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(fits(one, typing.get_args(hint)[0]) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint if hint is not type(None) else value is None


def check(groups: list[object] | InputError) -> None:
    """Every field of a parsed config is what its annotation says."""
    if isinstance(groups, InputError):
        return
    for group in groups:
        for name, hint in typing.get_type_hints(type(group)).items():
            assert fits(getattr(group, name), hint), (name, getattr(group, name))
    yaml.safe_load(yaml.safe_dump(as_dict(*groups)))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Flags with odd and ordinary values, joined, repeated, without values, unknown ones between."""
    tokens = [] if draw(st.integers(0, 3)) == 0 else [f"--{name}={value}" for name, value in LEAST.items()]
    for name in draw(st.lists(FIELDS, max_size=4)):
        values = draw(st.lists(st.one_of(ODD_TEXT, st.sampled_from(sorted(VALID.values())), st.text()), max_size=2))
        joined = values and draw(st.booleans())
        tokens += [f"--{name}={values[0]}", *values[1:]] if joined else [f"--{name}", *values]
    strange = st.sampled_from(
        ["--", "-x", "--config", "--config=", "--data.x=1", "---seed", "--print_config=x", "=", ""]
    )
    return tokens + draw(st.lists(st.one_of(strange, ODD_TEXT), max_size=1))


@examples(90)
@given(command_lines())
def test_command_lines(argv):
    try:
        check(result_or_error(lambda: parse(GROUPS, argv)))
    except SystemExit as end:  # --print_config
        assert end.code == 0


@examples(50)
@given(FIELDS, ODD_TEXT)
def test_a_value_that_is_refused_is_refused_by_the_name_of_its_field(name, value):
    found = result_or_error(
        lambda: parse(GROUPS, [*(f"--{key}={least}" for key, least in LEAST.items()), f"--{name}={value}"])
    )
    check(found)
    if isinstance(found, InputError):
        assert name in str(found), found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("yaml")


YAML_VALUES = st.recursive(
    st.one_of(STRANGE, ODD_TEXT.filter(str.isprintable)), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


@examples(50)
@given(st.dictionaries(st.one_of(FIELDS, st.sampled_from(["seeed", "", "config", "a.b"])), YAML_VALUES, max_size=4))
def test_yamls(folder, content):
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(LEAST | content), encoding="utf-8")
    check(result_or_error(lambda: parse(GROUPS, ["--config", str(path)])))


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
WRITTEN = b"student: test_vit\nmax_steps: 3\nteachers: [ema, &a hf-hub:a/b, *a]\nlearning_rate: 1e-3\nflip: no\n"


@examples(50)
@given(damaged_bytes(WRITTEN))
def test_damaged_yamls(folder, content):
    path = folder / "damaged.yaml"
    path.write_bytes(content)
    check(result_or_error(lambda: parse(GROUPS, ["--config", str(path)])))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed: 1\nseed: 2\n", "key 'seed' occurs twice"),
        ("student: !!python/object/apply:os.system ['echo harm > harm']\n", "not valid YAML"),
        ("seed: !!python/name:os.system\n", "not valid YAML"),
        ("seed: !!int many\n", "not valid YAML"),
        ("flip: !!bool many\n", "not valid YAML"),
        ("dataset: 2001-99-99\n", "not valid YAML"),
        ("dataset: 2001-09-09\n", "dataset is one value"),
        (f"seed: {'9' * 5000}\n", "not valid YAML"),
        ("[" * 400, "not valid YAML"),
        (f"{LAUGHS}teachers: *a11\n", "unknown key 'a0'"),
        ("teachers: &a [*a]\n", "teachers is a list of values|not valid YAML"),
        (LAUGHS.replace("a0: ", "teachers:\n- ", 1).replace("\na", "\n- ").replace(": &", " &"), "teachers is a list"),
        ("teachers: ['--push_to_hub=me/x']\n", "teachers is a list of values"),
        ("teachers: [[a]]\n", "teachers is a list of values"),
        ("? [a, b]\n: 1\n", "not valid YAML|unknown key"),
        ("\0", "not valid YAML"),
    ],
)
def test_yamls_that_mean_harm(folder, content, said):
    path = folder / "harm.yaml"
    path.write_text(content)
    for read in (lambda: parse(GROUPS, ["--config", str(path)]), lambda: read_comparison(["--config", str(path)])):
        with pytest.raises(InputError) as refused:
            read()
        assert len(str(refused.value)) < 5000
    with pytest.raises(InputError, match=said):
        parse(GROUPS, ["--config", str(path)])
    assert not Path("harm").exists()


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "/dev/zero", "."])
def test_a_yaml_that_is_no_file(name):
    with pytest.raises(InputError, match="is not a file"):
        parse(GROUPS, ["--config", name])


FLOATS = {
    name: group
    for group in (*GROUPS, TransInvConfig, AugmentationConfig, PrimitiveConfig)
    for name, hint in typing.get_type_hints(group).items()
    if hint in (float, float | None)
}


@pytest.mark.parametrize("index", ["", "²", "٣", "-1", "1.0", "9" * 5000, "01", " 1"])
def test_teachers_are_counted_in_plain_digits(index):
    with pytest.raises(InputError, match="student_init"):
        parse([StudentConfig], ["--teachers", "a", "b", "c", "--student_init", f"teacher:{index}"])


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_no_field_takes_what_is_no_number(value):
    """NaN compares with nothing: a check of a range that is written the wrong way round lets it through."""
    for field, group in FLOATS.items():
        with pytest.raises(InputError, match=field):
            read_fields([group], [f"--{field}={value}"])


def test_the_configs_of_training_refuse_it_themselves():
    for field in (name for name, group in FLOATS.items() if group is TrainConfig):
        with pytest.raises(InputError):
            TrainConfig(**{"max_steps": None if field == "num_train_epochs" else 1, field: math.nan})
