"""What the student's network does not take is refused before any data is read, also by a comparison."""

import pytest
import timm
import yaml

import hf_transinv.experiment.session
from hf_transinv.config import StudentConfig, TrainConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.student_checks import check_student
from tests.experiment.test_bad_input import LEAST, _alone, run  # noqa: F401 (fixtures)
from tests.launching import REPOSITORY, TRAIN_TEACHER

RESNET = ["--student", "test_resnet", "--student_init", "pretrained"]
VIT = ["--student", "test_vit", "--student_init", "pretrained"]
REFUSED = [
    ([*RESNET, "--grad_checkpointing"], "'test_resnet' has BatchNorm"),
    ([*RESNET, "--freeze", 6], "a ResNet has 6 groups of layers"),
    ([*RESNET, "--model_args", "drop_pth_rate=0.1"], "has no such argument; did you mean drop_path_rate?"),
    ([*VIT, "--student_size", 100], "cuts images into patches of 16 px, and 100 is no multiple"),
    ([*VIT, "--learning_rate", 0.1, "--optimizer", "adamww"], "optimizer 'adamww'"),
]


@pytest.fixture(autouse=True)
def _no_data(monkeypatch):
    def open_data(*_):
        raise AssertionError("data was read")

    monkeypatch.setattr(hf_transinv.experiment.session, "open_data", open_data)


@pytest.mark.parametrize(("flags", "said"), REFUSED)
def test_what_the_network_does_not_take(run, flags, said):  # noqa: F811
    least = [flag for flag in LEAST if flag not in ("--student", "wrn10_1_cifar")]
    code, printed = run(*least, *flags)
    assert code == 2 and said in printed


def test_of_train_teacher_and_of_a_row(run, tmp_path):  # noqa: F811
    flags = ["--dataset", "digits/target", "--max_steps", 2, *REFUSED[0][0], "--output_dir", "out"]
    code, printed = run(*flags, recipe=TRAIN_TEACHER)
    assert code == 2 and REFUSED[0][1] in printed
    content = {"dataset": "digits/target", "student": "test_vit", "student_init": "pretrained", "max_steps": 2}
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump({**content, "freeze": 9, "rows": {"plain": None}}))
    code, printed = run("--config", "rows.yaml", recipe=REPOSITORY / "recipes" / "compare.py")
    assert code == 2 and "row 'plain': freeze 9: a VisionTransformer has" in printed


def test_networks_of_transformers_and_those_without_a_head(tmp_path):
    from transformers import SwinConfig, SwinForImageClassification, ViTImageProcessor

    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]}
    SwinForImageClassification(SwinConfig(**sizes, window_size=4)).save_pretrained(tmp_path / "swin")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "swin")
    headless = timm.create_model("test_vit", num_classes=0)
    timm.models.save_for_hf(headless, tmp_path / "headless", safe_serialization=True)
    swin, vit = (StudentConfig(str(tmp_path / name), "pretrained") for name in ("swin", "headless"))
    check_student(vit, TrainConfig(max_steps=2, freeze="all"))
    check_student(vit, TrainConfig(max_steps=2, interpolate=0.5, head_learning_rate=0.1))
    check_student(swin, TrainConfig(max_steps=2, freeze=1))
    with pytest.raises(InputError, match="its encoder has layers within its stages"):
        check_student(swin, TrainConfig(max_steps=2, layer_decay=0.7))
    with pytest.raises(InputError, match=r"model_args drop_path: the SwinConfig .* has no such field; did you mean"):
        check_student(
            StudentConfig(str(tmp_path / "swin"), "pretrained", model_args=("drop_path=0.1",)),
            TrainConfig(max_steps=2),
        )
