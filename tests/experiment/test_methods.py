"""Every method by name: what composes, what is refused, and each of them through the launcher, resumed, in timm."""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import hf_transinv  # noqa: F401 (registers the architectures)
from hf_transinv.augment.policies import POLICIES, PolicyConfig, build_policies
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.methods import GROUPS, MethodConfig
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.registry import LEARNED, METHODS, by_name
from hf_transinv.objectives.supervised import Supervised
from tests.launching import ACCELERATE, PYTHON, REPOSITORY, launch, succeed

TRAIN = REPOSITORY / "recipes" / "train.py"
DIGITS = ["--dataset", "digits/target", "--image_size", 32, "--student", "wrn10_1_cifar"]
JUDGE, SAME_LABELS = str(REPOSITORY / "model_cards" / "digits_light"), "ema"

EVERY = {
    "crop-flip": [],
    "randaugment": ["--augment", "randaugment", "cutout"],
    "autoaugment": ["--augment", "autoaugment"],
    "trivialaugment": ["--augment", "trivialaugment"],
    "fixed-aug": ["--augment", "fixed_aug"],
    "corruption": ["--augment", "corruption", "--corruption", "fog"],
    "jitter": ["--augment", "pad_crop", "grayscale", "color_jitter"],
    "augmix": ["--method", "augmix"],
    "ait": ["--method", "ait", "--augment", "randaugment"],
    "ait-features": [
        *("--method", "ait", "--ait_layer", "features", "--ait_metric", "both"),
        *("--second_augment", "grayscale"),
    ],
    "multi-ait": ["--method", "multi_ait", "--peers", "resnet20_cifar"],
    "mutual": ["--method", "mutual", "--peers", "resnet20_cifar"],
    "distillation": ["--method", "distillation", "--teachers", SAME_LABELS, "--augment", "strong"],
    "transinv": ["--augment", "transinv", "--teachers", JUDGE, "--student_init", "teacher:1"],
    "transinv-sum": [
        *("--augment", "transinv", "--teachers", JUDGE, "ema", "--student_init", "teacher:1"),
        *("--objective", "paper", "--selection", "sum"),
    ],
    "l2-sp": ["--method", "l2_sp", "--teachers", JUDGE, "--student_init", "teacher:1"],
    "teachaugment": ["--augment", "teachaugment", "--teach_replay_epochs", 0.2],
    "hard": ["--method", "hard", "--teachers", SAME_LABELS, "--hard_augmenter", "thin_plate"],
    "distillation-transinv": [
        *("--method", "distillation", "--augment", "transinv", "cutout"),
        *("--teachers", JUDGE, SAME_LABELS, "--distill_from", SAME_LABELS),
    ],
    "consistency": [
        *("--method", "consistency", "--augment", "transinv", "--teachers", JUDGE),
        *("--consistency_warmup", 0.5, "--consistency_target", "ema"),
    ],
    "paired": ["--method", "paired", "--augment", "transinv", "--teachers", JUDGE],
    "ait-teachaugment": ["--method", "ait", "--augment", "teachaugment"],
    "mixed-transinv": [
        *("--augment", "transinv", "--teachers", JUDGE, "--student_init", "teacher:1", "--sampler", "balanced"),
        *("--mixup", 0.2, "--cutmix", 1, "--mixup_prob", 0.9, "--random_erasing", 0.25),
    ],
}
NAMED = {flag for flags in EVERY.values() for flag in flags}
EVERY |= {name: ["--method", name] for name in METHODS if name not in NAMED | {"supervised"}}
EVERY |= {name: ["--augment", name] for name in (*LEARNED, *POLICIES) if name not in NAMED}


def resumed_equals_whole(folder: Path, data: list, method: list, size: int = 32) -> None:
    """Run to step 6, go back to the checkpoint of step 3 in a copy, and resume: everything is the same to the bit, and
    plain timm loads the student."""
    flags = [*data, *method, "--batch_size", 16, "--max_steps", 6, "--save_steps", 3, "--save_total_limit", 9]
    flags += ["--logging_steps", 1, "--eval_corruptions", "none"]
    if "--student_init" in method:
        flags = [flag for flag in flags if flag not in ("--student", "wrn10_1_cifar")]
    if "distillation" in method:
        flags += ["--distill_top_k", 3]
    if "transinv" in method:
        flags += ["--inner_steps", 2]
    succeed(ACCELERATE, TRAIN, *flags, "--output_dir", "whole", cwd=folder)
    whole, half = folder / "whole", folder / "half"
    (half / "checkpoints").mkdir(parents=True)
    shutil.copytree(whole / "checkpoints" / "step_00000003", half / "checkpoints" / "step_00000003")
    shutil.copy(whole / "metrics.jsonl", half)
    record = json.loads((whole / "run.json").read_text())
    (half / "run.json").write_text(json.dumps(record | {"rows": {}, "status": "running"}))
    succeed(ACCELERATE, TRAIN, *flags, "--output_dir", "half", "--resume_from", "latest", cwd=folder)
    for path in (whole / "checkpoints" / "step_00000006").glob("*.safetensors"):
        assert path.read_bytes() == (half / "checkpoints" / "step_00000006" / path.name).read_bytes(), path.name
    states = [torch.load(out / "checkpoints" / "step_00000006" / "training.pt") for out in (whole, half)]
    assert torch.equal(*(state["generator"] for state in states))
    model = timm.create_model(f"local-dir:{half / 'student'}", pretrained=True).eval()
    weights = load_file(whole / "student" / "model.safetensors")
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model(torch.rand(2, 3, size, size)).isfinite().all()


@pytest.mark.parametrize("name", ["distillation-transinv", *(pytest.param(n, marks=pytest.mark.slow) for n in EVERY)])
def test_resumed_equals_whole_and_plain_timm_loads_it(tmp_path, name):
    resumed_equals_whole(tmp_path, DIGITS, EVERY[name])


@pytest.mark.parametrize("name", [*METHODS, *LEARNED])
def test_passes_of_every_kind_of_turn_are_stated(name):
    kind = (METHODS | LEARNED)[name]
    turns = {("student", "peer")} if name == "mutual" else set(getattr(kind, "turns", ()))
    assert turns <= set(kind.passes) and all(passes.bound >= 1 for passes in kind.passes.values())


@pytest.mark.parametrize("fact", ["title", "summary", "passes", "build"])
def test_a_method_that_does_not_state_a_fact_is_an_error_at_import(fact):
    stated = {
        "name": "toy",
        "title": "Toy",
        "summary": "It played.",
        "passes": {},
        "build": classmethod(Supervised.build),
    }
    toy = type("Toy", (Objective,), {name: value for name, value in stated.items() if name != fact})
    with pytest.raises(TypeError, match=f"Toy does not state its {fact}"):
        by_name(toy)


def test_two_methods_of_one_name_are_an_error_at_import():
    with pytest.raises(TypeError, match="have one name"):
        by_name(Supervised, type("Toy", (Supervised,), {"build": classmethod(Supervised.build)}))


def test_every_policy_can_be_built():
    names = [name for name in POLICIES if name != "corruption"]
    policies = build_policies(names, PolicyConfig())
    assert [policy.name for policy in policies] == names
    with pytest.raises(InputError, match="rain"):
        build_policies(["rain"], PolicyConfig())


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({}, ""),
        ({"augment": ("randaugment", "cutout")}, "RandAugment + Cutout"),
        ({"method": "distillation", "augment": ("transinv",)}, "distillation + TransInv"),
        ({"method": "augmix"}, "AugMix"),
        ({"method": "augmix", "augment": ("augmix",)}, "AugMix"),
    ],
)
def test_title(fields, title):
    assert MethodConfig(**fields).title == title


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "agumix"}, "agumix"),
        ({"augment": ("randaug",)}, "randaug"),
        ({"augment": ("transinv", "teachaugment")}, "one learned"),
        ({"augment": ("cutout", "transinv")}, "comes first"),
        ({"method": "ait", "second_augment": ("transinv",)}, "both variants"),
        ({"method": "augmix", "augment": ("transinv",)}, "deform the image itself"),
        ({"method": "hard", "augment": ("cutout",)}, "its own augmentation"),
        ({"second_augment": ("cutout",)}, "second_augment is for method ait"),
        ({"peers": ("resnet20_cifar",)}, "peers is for method multi_ait or mutual"),
        ({"method": "ait", "distill_from": ("ema",)}, "distill_from is for method distillation"),
    ],
)
def test_what_does_not_compose_is_refused(fields, said):
    with pytest.raises(InputError, match=said):
        MethodConfig(**fields)


def test_all_options_are_flags_of_distinct_names():
    (method, policy, *_) = parse(GROUPS, ["--method", "ait", "--randaugment_magnitude", "9"])
    assert method.method == "ait" and policy.randaugment_magnitude == 9


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "distillation"], "distillation needs at least one name, --teachers ID"),
        (["--method", "hard", "--teachers", "ema", "ema"], "one teacher"),
        (["--method", "distillation", "--teachers", JUDGE, "--distill_top_k", 3], "not each of these is among"),
        (["--method", "distillation", "--teachers", "ema", "--distill_from", "emu"], "distill_from emu"),
        (["--corruption", "fog"], "add corruption to augment"),
        (["--method", "ait", "--batch_size", 5], "multiple of 2"),
    ],
)
def test_errors_of_a_run(tmp_path, flags, said):
    done = launch(PYTHON, TRAIN, *DIGITS, "--max_steps", 2, "--batch_size", 4, *flags, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_single_teacher_starts_from_the_teachers_weights_with_a_new_head(tmp_path):
    """The embedded default, with a learning rate of next to nothing: after two steps it is still the teacher."""
    config = REPOSITORY / "recipes" / "configs" / "digits_single_teacher.yaml"
    flags = ["--config", config, "--max_steps", 2, "--learning_rate", 1e-9, "--weight_decay", 0, "--baselines"]
    flags += ["--eval_corruptions", "none", "--output_dir", "out", "--teachers", JUDGE]
    done = succeed(ACCELERATE, REPOSITORY / "recipes" / "single_teacher.py", *flags, cwd=tmp_path)
    assert re.search(r"top-1, % +TransInv\n", done.stdout)
    student = load_file(tmp_path / "out" / "student" / "model.safetensors")
    teacher = load_file(Path(JUDGE) / "model.safetensors")
    inherited = {name for name in teacher if not name.startswith("head.fc") and name.endswith(("weight", "bias"))}
    assert len(inherited) > 20
    for name in inherited:
        torch.testing.assert_close(student[name], teacher[name], rtol=0, atol=1e-5, msg=name)
    assert student["head.fc.weight"].shape == teacher["head.fc.weight"].shape  # five digits each, and not the same
    assert not torch.allclose(student["head.fc.weight"], teacher["head.fc.weight"], atol=1e-3)
