"""What a user sees of input that cannot be used: exit code 2, one line, before training, the output folder untouched.

The recipe's own file is run in this process, under `__main__`. What readers and openers refuse is tested beside them,
in tests/data and tests/models; here a case of each kind goes all the way.
"""

import contextlib
import importlib.util
import io
import json
import re
import runpy
import sys
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import check_same_run
from hf_transinv.training.checkpointing import checkpoints
from hf_transinv.training.trainer import Trainer
from tests.launching import MULTI_TEACHER, TRAIN_TEACHER, tiny_teachers
from tests.training.test_checkpointing import files_no_larger_than

LEAST = ["--dataset", "digits/target", "--image_size", "32", "--student", "wrn10_1_cifar", "--batch_size", "16"]
LEAST += ["--max_steps", "4", "--inner_steps", "1", "--teachers", "ema", "--eval_corruptions", "none"]
LEAST += ["--output_dir", "out"]


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """A working folder of its own, the CPU, no Hub, no token."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a recipe with these flags; returns its exit code and what it wrote to stderr."""

    def start(*flags: str, recipe: Path = MULTI_TEACHER) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(recipe), *map(str, flags)])
        try:
            runpy.run_path(str(recipe), run_name="__main__")
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return start


@pytest.fixture
def refused(run):
    """Runs a recipe that must refuse; returns the one line that says why."""

    def start(*flags: str, recipe: Path = MULTI_TEACHER) -> str:
        code, said = run(*flags, recipe=recipe)
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(lines) == 1 and said.splitlines()[-1] == lines[0], said
        assert not any(Path(folder).exists() and any(Path(folder).iterdir()) for folder in ("out", "outputs"))
        return lines[0]

    return start


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_data(images: list[bytes], labels: list[int], names: tuple[str, ...] = ("cat", "dog")) -> str:
    """A dataset in Hub shape, the same rows in train and test; returns its folder."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    cells = [{"bytes": image, "path": None} for image in images]
    rows = datasets.Dataset.from_dict({"image": cells, "label": labels}, features)
    Path("data").mkdir()
    for split in ("train", "test"):
        rows.to_parquet(f"data/{split}-00000-of-00001.parquet")
    return "./data"


def pictures(count: int) -> list[bytes]:
    return [png(np.random.default_rng(row).integers(0, 256, (32, 32, 3), dtype=np.uint8)) for row in range(count)]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--dataset digits/sauce", "no embedded digits called 'digits/sauce'"),
        ("--dataset ./nowhere", "no folder or file './nowhere'"),
        ("--dataset nobody/nothing", "'nobody/nothing' cannot be opened"),
        ("--train_split extra", "cannot give split 'extra'.*train, test"),
        ("--train_split train[:0]", "is empty"),
        ("--eval_split holdout", "cannot give split 'holdout'"),
        ("--eval_steps 2", "eval_steps measures the student while it trains.*--validation_share 0.1"),
        ("--validation_corruptions blur --validation_share 0.1", "validation_corruptions blur: unknown"),
        ("--validation_split train --eval_steps 2", "validation_split train and train_split train are the same"),
        ("--extend_to_steps 9", "give --resume_from latest"),
        ("--validation_share 1", r"validation_share must be in \[0, 1\)"),
        ("--validation_share 0.2 --validation_fold 5", "validation_fold 5: expected 0 to 4"),
        ("--validation_fold 1", "validation_fold 1 needs a share"),
        ("--image_column picture", "picture"),
        ("--label_column class", "class"),
        ("--batch_size 200 --gradient_accumulation_steps 200", "has 100 images for 200 processes x micro-batches"),
        ("--student wrn10_1_cifer", "wrn10_1_cifar"),
        ("--student nobody/nothing", "nobody/nothing"),
        ("--teachers ema wrn10_1_cifer", "wrn10_1_cifar"),
        ("--teachers ema ./nowhere", "nowhere"),
        ("--teachers", "at least one name"),
        ("--student_init pretrained", "timm has no weights for 'wrn10_1_cifar'"),
        ("--optimizer sgdd", "optimizer 'sgdd'"),
        ("--lr_scheduler cosin", "lr_scheduler 'cosin'"),
        ("--eval_corruptions fogg", "fogg.*gaussian_noise"),
        ("--gradient_accumulation_steps 3", "cannot be split into 1 processes x 3 micro-batches"),
        ("--push_to_hub me/model", "needs a token"),
        ("--resume_from latest", "holds no run to resume"),
        ("--learning_rat 1", "did you mean learning_rate"),
        ("--num_train_epochs 1", "num_train_epochs or max_steps"),
        ("--streaming --train_split train[:50%]", "is a slice"),
        ("--dataset ~nobody-by-that-name/data", "There is no folder"),
        (f"--dataset {'x' * 300}", "cannot be opened"),
        (f"--teachers {'x' * 300}", "Unknown model"),
        (f"--output_dir {'x' * 300}", "cannot be written"),
        (f"--resume_from {'x' * 300}", "is no folder: expected latest"),
        ("--learning_rate nan", "learning_rate"),
        (f"--batch_size {'9' * 30}", "batch_size"),
    ],
)
def test_a_flag_that_cannot_be_used(refused, flags, said):
    assert re.search(said, refused(*LEAST, *flags.split()))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--optimizer agdw", "optimizer 'agdw'.*did you mean .*adamw"),
        ("--lr_scheduler cosin", "did you mean cosine"),
        ("--lr_scheduler rsqrt --warmup_ratio 0", "lr_scheduler 'rsqrt' with 4 steps, 0 of them warm-up"),
        ("--learning_rate fast", "learning_rate 'fast': expected a number"),
        ("--resume_from lates", "did you mean latest"),
        ("--augment transinv cutot", "augment 'cutot' is not one of cutout, .*did you mean cutout"),
        ("--augment transinv randaugment --randaugment_magnitude 31", "its M 31.0: expected"),
        ("--method suprevised", "did you mean supervised"),
        ("--crop padd", "did you mean pad"),
        ("--preset finetune_cn", "did you mean finetune_cnn"),
        ("--eval_corruptions fogg", "did you mean fog"),
        ("--validation_share 0.2 --validation_corruptions snoww", "did you mean snow"),
        ("--primitives geometri", "did you mean geometric"),
        ("--student_init pretraind", "did you mean pretrained"),
        ("--student wrn10_1_cifer", "did you mean wrn10_1_cifar"),
        ("--student test_vit --student_size 20", "patches of 16 px"),
        ("--model_args depht=3", "depht"),
        ("--teachers ema wrn10_1_cifer", "did you mean wrn10_1_cifar"),
        ("--teachers ema ./nowhere", "nowhere"),
        (
            "--freeze 99 --student null --student_init teacher:2 --teachers ema model_cards/digits_light",
            "freeze 99: a",
        ),
        ("--batch_size 200 --gradient_accumulation_steps 200", "has 100 images for 200 processes x micro-batches"),
        ("--batch_size 15 --method ait", "must be a multiple of 2"),
        ("--output_dir /dev/null/out", "cannot be written|is not empty"),
    ],
)
def test_what_can_be_known_before_is_refused_before_anything_is_decoded(refused, monkeypatch, flags, said):
    monkeypatch.setattr(ResidentSplit, "load", lambda *_, **__: pytest.fail("images were decoded"))
    least = LEAST if "--student" not in flags.split() else [one for one in LEAST if one not in ("--student", LEAST[5])]
    assert re.search(said, refused(*least, *flags.split()))


def test_a_tracker_that_is_not_installed(refused):
    missing = [name for name in ("trackio", "wandb", "tensorboard") if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("every tracker is installed here")
    assert f"pip install {missing[0]}" in refused(*LEAST, "--report_to", missing[0])


def test_an_unknown_corruption_to_train_under(refused):
    flags = [flag for flag in LEAST if flag not in ("--teachers", "ema", "--inner_steps", "1")]
    assert "gaussian_noise" in refused(*flags, "--corruption", "gausian", recipe=TRAIN_TEACHER)
    assert "unknown flag 'teachers_'" in refused(*flags, "--teachers_", "x", recipe=TRAIN_TEACHER)


def test_a_teacher_without_weights_or_with_a_pickle_only(refused):
    wide, _ = tiny_teachers(Path("teachers"))
    weights = Path(wide) / "model.safetensors"
    weights.unlink()
    assert "no weights" in refused(*LEAST, "--teachers", wide)
    torch.save({}, Path(wide) / "pytorch_model.bin")
    said = refused(*LEAST, "--teachers", wide)
    assert "pickle only" in said and "safetensors.torch.save_file" in said


def test_a_teacher_whose_weights_have_another_shape(refused):
    wide, _ = tiny_teachers(Path("teachers"))
    config = json.loads((Path(wide) / "config.json").read_text())
    (Path(wide) / "config.json").write_text(json.dumps(config | {"architecture": "wrn16_1_cifar"}))
    assert "wide" in refused(*LEAST, "--teachers", wide)


def test_fewer_than_two_classes(refused):
    data = write_data(pictures(20), [0] * 20, names=("cat",))
    assert "class" in refused(*LEAST, "--dataset", data)


def test_a_label_beyond_the_names(refused):
    data = write_data(pictures(20), [0, 1] * 10)
    labels = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for split, last in (("train", -1), ("test", 0)):
        rows = {"image": [{"bytes": x, "path": None} for x in pictures(20)], "label": [0, 1] * 9 + [last, 0]}
        datasets.Dataset.from_dict(rows, labels).to_parquet(f"{data}/{split}-00000-of-00001.parquet")
    said = refused(*LEAST, "--dataset", f"{data}/*.parquet")
    assert "Row 18" in said and "the label is -1" in said


@pytest.mark.parametrize("reading", [[], ["--streaming"]])
def test_a_truncated_image_is_named_or_skipped_and_counted(refused, run, caplog, reading):
    images = pictures(40)
    images[7] = images[7][: len(images[7]) // 2]
    data = write_data(images, [0, 1] * 20)
    flags = [*LEAST, "--dataset", data, *reading]
    assert "Row 7" in refused(*flags)
    code, said = run(*flags, "--on_bad_image", "skip")
    assert code == 0, said
    row = json.loads(Path("out/run.json").read_text())["rows"]["paired + TransInv"]
    assert row["results"]["num_images"] == 39
    if not reading:  # a stream counts what it meets
        assert row["images_skipped"] == 1
        assert sum("1 images could not be decoded" in message for message in caplog.messages) == 2


def test_the_traceback_of_bad_input_when_it_is_asked_for(run, monkeypatch):
    assert "Traceback" not in run(*LEAST, "--dataset", "./nowhere")[1]
    monkeypatch.setenv("HF_TRANSINV_DEBUG", "1")
    code, said = run(*LEAST, "--dataset", "./nowhere")
    assert code == 2 and "Traceback" in said and "in open_local" in said
    assert said.splitlines()[-1].startswith("error: There is no folder or file './nowhere'")


@pytest.mark.parametrize(("row", "folder"), [("paired + TransInv", "out"), ("crop + flip", "out/baselines/crop_flip")])
def test_an_error_that_nobody_expected_keeps_its_traceback_and_says_where_to_go_on(
    run, monkeypatch, capsys, row, folder
):
    def fail(self):
        if self.setup.label == row and checkpoints(self.setup.folder / "checkpoints"):
            raise AttributeError("a fault of ours")
        return take_turn(self)

    take_turn = Trainer.take_turn
    monkeypatch.setattr(Trainer, "take_turn", fail)
    with pytest.raises(AttributeError, match="a fault of ours"):
        run(*LEAST, "--save_steps", "2", "--baselines", "crop_flip")
    said = capsys.readouterr().err
    assert f"an unexpected error while training {row!r}. Its last checkpoint is {folder}/checkpoints/" in said
    assert "--output_dir out --resume_from latest" in said and "Please report it" in said


def test_an_output_folder_that_is_not_this_runs(run):
    Path("out").mkdir()
    Path("out/run.json").write_text('{"recipe": "multi_teacher", "config": {}}')
    Path("out/thesis.tex").write_text("the only copy")
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    code, said = run(*LEAST)
    assert code == 2 and "out is not empty and would be overwritten" in said
    code, said = run(*LEAST, "--resume_from", "latest")
    assert code == 2 and "resumed with the fields it was started with, but" in said
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
    Path("file").write_text("")
    code, said = run(*LEAST, "--output_dir", "file")
    assert code == 2 and "file is not empty" in said


def test_refused_input_does_not_take_the_folder(run):
    """Corrected, the same command goes through."""
    assert run(*LEAST, "--teachers", "./nowhere")[0] == 2
    assert run(*LEAST)[0] == 0
    assert json.loads(Path("out/run.json").read_text())["status"] == "finished"


def test_a_damaged_checkpoint_and_one_of_another_run(run):
    assert run(*LEAST, "--save_steps", "2")[0] == 0
    newest = Path("out/checkpoints/step_00000004")
    (newest / "training.pt").write_bytes(b"PK")
    code, said = run(*LEAST, "--save_steps", "2", "--resume_from", "latest")
    assert code == 2 and "training.pt is damaged" in said and "--resume_from out/checkpoints/step_00000002" in said
    other = Path("other")
    code, said = run(*LEAST, "--output_dir", other, "--resume_from", newest)
    assert code == 2 and "is not one of the run in other" in said and newest.exists()
    code, said = run(*LEAST, "--save_steps", "2", "--resume_from", "latest", "--learning_rate", "0.3", "--seed", "4")
    assert code == 2 and "learning_rate was 0.1, is 0.3" in said and "seed was 0, is 4" in said
    code, said = run(*LEAST, "--save_steps", "2", "--resume_from", "out/checkpoints/step_00000002")
    assert code == 0, said
    assert newest.exists() and json.loads(Path("out/run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_full_disk_ends_with_one_line(run, size):
    """Nothing can be written (100 bytes: not even run.json), or the first checkpoint no more."""
    with files_no_larger_than(size):
        code, said = run(*LEAST)
    assert code == 2 and said.splitlines()[-1].startswith("error: ") and "Is the disk full?" in said, said
    assert not Path("out/student").exists()
    with contextlib.suppress(FileNotFoundError):
        assert not list(Path("out/checkpoints").iterdir())


def test_a_loss_that_is_not_finite_has_an_exit_code_of_its_own(run):
    code, said = run(*LEAST, "--learning_rate", "1e38", "--max_grad_norm", "0", "--warmup_ratio", "0")
    assert code == 3 and said.splitlines()[-1].startswith("error: ") and "Try a smaller learning_rate" in said
    assert not Path("out/student").exists()


def test_a_record_of_an_earlier_version_lacks_later_fields():
    check_same_run({"dataset": "a", "seed": 0}, {"dataset": "a", "seed": 0, "later": 0.0, "another": []})
    with pytest.raises(InputError, match="later was None"):
        check_same_run({"dataset": "a"}, {"dataset": "a", "later": 0.2})
    with pytest.raises(InputError, match="dataset was 'a', is 'b'"):
        check_same_run({"dataset": "a"}, {"dataset": "b"})


def test_a_record_without_the_fields_of_cuts_is_resumed_as_it_was_cut():
    """Earlier versions resized bilinearly and cropped central squares: crops of whole pictures are another run."""
    cut = {"crop": "pad", "crop_scale": [], "crop_ratio": [], "stored_size": None}
    check_same_run({"crop": "pad"}, {**cut, "eval_crop_pct": 1.0, "interpolation": "bilinear"})
    with pytest.raises(InputError, match=r"eval_crop_pct was 1\.0, is 0\.9"):
        check_same_run({"crop": "pad"}, {**cut, "eval_crop_pct": 0.9})
    with pytest.raises(InputError, match="stored_size was None, is 110"):
        check_same_run({"crop": "resized"}, {"crop": "resized", "stored_size": 110})
