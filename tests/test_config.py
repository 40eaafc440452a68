"""Configuration: who wins among defaults, YAML and command line, and what is refused with which words.

The oracle is the rule itself, written down by hand for each case.
"""

from pathlib import Path

import pytest
import yaml

from hf_transinv.augment.learned import AugmentationConfig
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import as_flags, parse, told_configs
from hf_transinv.objectives.transinv import TransInvConfig
from hf_transinv.resolve.shipped import config_folder

GROUPS = [DataConfig, StudentConfig, TrainConfig, TransInvConfig, AugmentationConfig, PrimitiveConfig, OutputConfig]
LEAST = ["--student", "test_vit", "--max_steps", "3"]


def parsed(*argv: str, default_config: Path | None = None) -> dict:
    return as_dict(*parse(GROUPS, argv, default_config))


@pytest.fixture
def write(tmp_path):
    """Writes a YAML and returns its path as text."""

    def to_file(content: str | bytes, name: str = "run.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return to_file


def test_defaults_then_yaml_then_command_line(write):
    config = write("student: test_vit\nmax_steps: 7\nbatch_size: 16\nlearning_rate: 1e-3\ncrop: none\n")
    values = parsed("--config", config, "--batch_size", "8", "--crop=resized")
    assert (values["batch_size"], values["crop"]) == (8, "resized")
    assert (values["student"], values["max_steps"], values["learning_rate"]) == ("test_vit", 7, 0.001)
    assert (values["momentum"], values["objective"]) == (TrainConfig.momentum, TransInvConfig.objective)


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("joined", [True, False])
def test_the_command_line_wins_wherever_config_stands(write, place, joined):
    path = write("student: test_vit\nmax_steps: 7\nbatch_size: 16\n")
    config = [f"--config={path}"] if joined else ["--config", path]
    flags = ["--batch_size", "8"]
    values = parsed(*(config + flags if place == "before" else flags + config))
    assert (values["batch_size"], values["max_steps"]) == (8, 7)


def test_the_later_of_two_yamls_wins(write):
    first = write("student: test_vit\nmax_steps: 7\nseed: 1\n")
    second = write("max_steps: 9\n", "second.yaml")
    values = parsed("--config", first, "--config", second)
    assert (values["max_steps"], values["seed"], values["student"]) == (9, 1, "test_vit")


def test_lists_take_their_values_one_after_another():
    values = parsed(*LEAST, "--teachers", "a", "hf-hub:b/c", "ema", "--eval_severities", "1", "3", "--baselines")
    assert values["teachers"] == ["a", "hf-hub:b/c", "ema"]
    assert values["eval_severities"] == [1, 3]
    assert values["baselines"] == []


def test_a_list_of_the_yaml_is_replaced_not_extended(write):
    config = write("student: test_vit\nmax_steps: 7\nteachers: [a, b]\n")
    assert parsed("--config", config)["teachers"] == ["a", "b"]
    assert parsed("--config", config, "--teachers", "ema")["teachers"] == ["ema"]


@pytest.mark.parametrize(
    ("flags", "streaming", "flip"),
    [
        ([], False, True),
        (["--streaming"], True, True),
        (["--streaming", "true", "--flip", "false"], True, False),
        (["--flip=false", "--streaming", "--seed", "1"], True, False),
    ],
)
def test_a_bare_flag_is_true(flags, streaming, flip):
    values = parsed(*LEAST, *flags)
    assert (values["streaming"], values["flip"]) == (streaming, flip)


def test_a_yaml_and_its_flags_say_the_same(write):
    content = (
        "student: null\nstudent_init: teacher:1\nmax_steps: 7\nlearning_rate: 1e-3\nflip: false\nstreaming: yes\n"
    )
    content += "teachers: ['a b: c', ema]\nbaselines: []\neval_severities: [1, 3]\ntrain_split: 'train[:90%]'\n"
    flags = as_flags(yaml.safe_load(content), GROUPS, "here")
    assert parsed(*flags) == parsed("--config", write(content))
    assert parsed(*flags, "--max_steps", "9")["max_steps"] == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"batch_sise": 1}, "unknown key 'batch_sise' in here; did you mean batch_size"),
        ({"teachers": "ema"}, r"here: teachers is a list, such as \[a, b\]; given 'ema'"),
        ({"crop": ["pad"]}, "here: crop is one value; given .'pad'."),
        ({"crop": {"pad": 4}}, "here: crop is one value"),
        ({"crop": None}, "here: crop cannot be null"),
    ],
)
def test_what_cannot_be_flags_is_named_with_its_place(content, said):
    with pytest.raises(InputError, match=said):
        as_flags(content, GROUPS, "here")


def test_what_print_config_prints_is_a_config(write, capsys):
    flags = [*LEAST, "--teachers", "a", "ema", "--streaming", "--learning_rate", "1e-4", "--dataset_revision", "main"]
    with pytest.raises(SystemExit) as end:
        parsed(*flags, "--print_config")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert set(yaml.safe_load(printed)) == set(parsed(*flags))
    assert parsed("--config", write(printed)) == parsed(*flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--ema besides", "ema 'besides' is not one of none, beside, instead; did you mean beside"),
        (
            "--baselines plain crop_flop",
            "baselines 'crop_flop' is not one of plain, crop_flip; did you mean crop_f",
        ),
    ],
)
def test_a_value_outside_a_closed_set(flags, said):
    with pytest.raises(InputError, match=said):
        parsed(*LEAST, *flags.split())


def test_the_default_config_serves_only_without_config_and_dataset(write):
    default = Path(write("student: wrn10_1_cifar\nmax_steps: 5\ndataset: digits/target\n", "default.yaml"))
    own = write("student: test_vit\nmax_steps: 6\n")
    assert parsed("--seed", "3", default_config=default)["dataset"] == "digits/target"
    assert parsed("--max_steps", "4", default_config=default)["max_steps"] == 4
    assert parsed("--config", own, default_config=default)["dataset"] is None
    assert parsed("--dataset", "x", *LEAST, default_config=default)["student"] == "test_vit"
    with pytest.raises(InputError, match="num_train_epochs or max_steps"):
        parsed("--dataset=x", "--student", "test_vit", default_config=default)


def test_which_yamls_are_read_is_said(write):
    default, own = Path(write("max_steps: 5\n", "default.yaml")), write("max_steps: 6\n")
    assert told_configs(["--seed", "3"], default) == [f"config      {default}"]
    assert told_configs(["--dataset", "x"], default) == []
    shipped = f"config      {config_folder() / 'digits.yaml'}"
    assert told_configs(["--config", own, "--config=digits"], default) == [f"config      {own}", shipped]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("learning_rat", "learning_rate"),
        ("teacher", "teachers"),
        ("student-init", "student_init"),
        ("epochs", "eval_epochs or num_train_epochs"),
        ("zzz", None),
    ],
)
def test_unknown_keys_name_the_nearest_known_one(write, wrong, near):
    hint = f"did you mean {near}\\?" if near else "See --help"
    with pytest.raises(InputError, match=rf"unknown flag '{wrong}' in the command line.*{hint}"):
        parsed(*LEAST, f"--{wrong}", "1")
    path = write(f"student: test_vit\n{wrong}: 1\n")
    with pytest.raises(InputError, match=rf"unknown key '{wrong}' in .*run.yaml.*{hint}"):
        parsed("--config", path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning_rate", "fast"], "learning_rate 'fast': expected a number$"),
        (["--batch_size", "2.5"], "batch_size '2.5': expected a whole number$"),
        (["--max_steps", "many"], "max_steps 'many': expected a whole number or null$"),
        (["--flip", "perhaps"], "flip 'perhaps': expected true or false$"),
        (["--eval_severities", "1", "x"], "eval_severities 'x': expected a whole number$"),
        (["stray"], "stray"),
        (["--config"], "config '' is not a file"),
    ],
)
def test_wrong_types_are_named_in_one_line(flags, said):
    with pytest.raises(InputError, match=said) as error:
        parsed(*LEAST, *flags)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("batch_size: many\n", "batch_size 'many': expected a whole number"),
        ("teachers: ema\n", r"teachers is a list, such as \[a, b\]; given 'ema'"),
        ("student_init: null\n", "student_init cannot be null"),
        ("dataset: [\n", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        ("- dataset\n", "key: value"),
        ("", "key: value"),
        ("config: other.yaml\n", "unknown key 'config'"),
    ],
)
def test_a_yaml_that_cannot_be_used_is_named_in_one_line(write, content, said):
    path = write(content)
    with pytest.raises(InputError, match=said) as error:
        parsed(*LEAST, "--config", path)
    assert "\n" not in str(error.value)


def test_a_missing_yaml_is_named():
    with pytest.raises(InputError, match=r"'nowhere\.yaml' is not a file"):
        parsed("--config", "nowhere.yaml")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--num_train_epochs 2", "num_train_epochs or max_steps"),
        ("--teachers a ema --student_init teacher:1", "student or student_init teacher:K, not both"),
        ("--student_init warm", "expected scratch, pretrained or teacher:K"),
        ("--objective constrained --keep cross_entropy", "needs keep 'kl'"),
        ("--objective best", "not one of paper, normalised, constrained"),
        ("--q_init 1", "q_init must be between 0 and 1"),
        ("--primitives sepia", "sepia.*expected some of"),
        ("--estimator guess", "estimator 'guess' is not one of expectation, gumbel"),
        ("--inner_steps 0", "inner_steps must be at least 1"),
        ("--tolerance 0", "tolerance must be positive"),
        ("--batch_size 0", "batch_size must be at least 1"),
        ("--max_steps 0", "max_steps must be positive"),
        ("--save_steps -1", "save_steps must be positive"),
        ("--learning_rate 0", "learning_rate must be positive"),
        ("--learning_rate nan", "learning_rate.*nan"),
        ("--seed -1", "seed must be at least 0"),
        ("--warmup_ratio 1", r"in \[0, 1\)"),
        ("--label_smoothing 1", r"in \[0, 1\)"),
        ("--ema_decay 1", r"ema_decay must be in \[0, 1\)"),
        ("--on_bad_image ignore", "not one of raise, skip"),
        ("--crop corner", "not one of pad, resized, none"),
        ("--label_noise 1", r"label_noise must be in \[0, 1\), given 1"),
        ("--label_noise -0.2", "label_noise must be in"),
        ("--label_noise 0.2 --streaming", "label_noise 0.2.*a stream never.*leave out streaming or label_noise"),
        ("--image_size 4", "image_size must be at least 8"),
        ("--interpolation nearest", "not one of bilinear, bicubic"),
        ("--crop_scale 0.1 1", "crop_scale belongs to --crop resized, and crop is pad"),
        ("--crop none --crop_ratio 1 2", "crop_ratio belongs to --crop resized, and crop is none"),
        ("--image_size 32 --stored_size 40", "stored_size belongs to --crop resized"),
        ("--crop resized --stored_size 40", "stored_size is given and image_size is not"),
        ("--crop resized --image_size 32 --stored_size 31", "stored_size must be at least 32"),
        ("--crop resized --image_size 32 --stored_size 40 --streaming true", "stores none: leave out streaming or"),
        ("--crop resized --crop_scale 0.5", "crop_scale 0.5: expected LOW HIGH"),
        ("--crop resized --crop_scale 0.5 1.1", "expected LOW HIGH, 0 < LOW <= HIGH <= 1"),
        ("--crop resized --crop_ratio 2 1", "crop_ratio 2.0 1.0: expected LOW HIGH"),
        ("--image_size 32 --eval_crop_pct 0", r"eval_crop_pct must be in \(0, 1\]"),
        ("--eval_crop_pct 0.9", "eval_crop_pct is given and image_size is not"),
        ("--interpolation bicubic", "interpolation is given and image_size is not"),
        ("--eval_severities 1 6", "expected some of 1 to 5"),
        ("--eval_severities", "expected some of 1 to 5"),
        ("--baselines mixup", "not one of plain, crop_flip"),
        ("--student_size 4", "student_size must be at least 8"),
        ("--teachers a b --teacher_size 4", "teacher_size must be at least 8"),
        ("--teacher_size 64", "there is no teacher but the student's average"),
        ("--teachers ema --teacher_size 64", "there is no teacher but the student's average"),
        ("--teachers a ema b c --teacher_size 64 32", r"2 sizes for 3 teachers \(ema has none\)"),
        ("--teachers a ema a --teacher_size 64 32", "two sizes to a teacher that is named twice"),
        ("--model_args drop_rate", "'drop_rate': expected key=value"),
        ("--model_args drop_rate=0.1 drop_rate=0.2", "drop_rate is given twice"),
        ("--model_args drop_rate=", "expected a number, true, false or a word"),
        ("--model_args dims=[1,2]", "expected a number, true, false or a word"),
        ("--model_args num_classes=5", "cannot set num_classes: the classes are those of the data"),
        ("--model_args img_size=64", "cannot set img_size: give student_size"),
        ("--model_args pretrained=true", "cannot set pretrained: give student and student_init"),
        ("--model_args in_chans=1", "cannot set in_chans: the network keeps the channels"),
        ("--report_to paper", "not one of tensorboard, wandb, trackio, none"),
    ],
)
def test_contradictions_and_impossible_values_are_refused(flags, said):
    with pytest.raises(InputError, match=said):
        parsed(*LEAST, *flags.split())


def test_the_stored_size_is_completed():
    values = parsed(*LEAST, "--crop", "resized", "--image_size", "96")
    assert values["stored_size"] == 110
    values = parsed(*LEAST, "--crop", "resized", "--crop_scale", "0.08", "1", "--image_size", "96")
    assert values["crop_scale"] == [0.08, 1.0]
    values = parsed(*LEAST, "--crop", "resized")
    assert values["stored_size"] is None, "without image_size images stay as they are"
    assert parsed(*LEAST, "--image_size", "96")["stored_size"] is None
    assert parsed(*LEAST, "--crop", "resized", "--image_size", "96", "--streaming", "true")["stored_size"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--student_init teacher:3 --teachers a b", r"K from 1 to the number of teachers \(2\)"),
        ("--student_init teacher:0 --teachers a b", "K from 1"),
        ("--student_init teacher:x --teachers a b", "K from 1"),
        ("--student_init teacher:2 --teachers a ema", "the student's own average"),
        ("--teachers a", "no student given"),
    ],
)
def test_the_student_must_come_from_somewhere(flags, said):
    with pytest.raises(InputError, match=said):
        parsed("--max_steps", "3", *flags.split())


def test_arguments_of_the_network_are_values_of_yaml(write):
    values = {"drop_rate": 0.1, "drop_path_rate": 1e-3, "depth": 2, "qkv_bias": False, "act_layer": "gelu"}
    given = ["drop_rate=0.1", "drop_path_rate=1e-3", "depth=2", "qkv_bias=false", "act_layer=gelu"]
    for flags in (["--model_args", *given], ["--config", write(f"model_args: [{', '.join(given)}]\n")]):
        names = parse(GROUPS, [*LEAST, *flags])[1]
        assert names.network_options == {"input_size": None, "grad_checkpointing": False, "model_args": values}


def test_a_size_for_all_teachers_or_one_for_each():
    teachers = ["--teachers", "a", "ema", "b"]
    sizes = [parse(GROUPS, [*LEAST, *teachers, *flags])[1].teacher_sizes for flags in ([], ["--teacher_size", "64"])]
    assert sizes == [{}, {"a": 64, "b": 64}]
    assert parse(GROUPS, [*LEAST, *teachers, "--teacher_size", "64", "32"])[1].teacher_sizes == {"a": 64, "b": 32}


def test_neither_epochs_nor_steps_is_refused():
    with pytest.raises(InputError, match="num_train_epochs or max_steps"):
        parsed("--student", "test_vit")
