"""What trackers are told: a run for each row, with its own settings, scores and figures, in real TensorBoard files."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from accelerate import Accelerator
from PIL import Image

from hf_transinv.config import DataConfig, MixingConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.experiment.methods import GROUPS
from hf_transinv.experiment.tracking import Tracking
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.training.tracked import scalars
from tests.tiny_run import tiny_trainer, tiny_vit

TRANSINV, CROP_FLIP = "TransInv", "crop + flip"


def row_of(top1: float, kin: list[str]) -> dict[str, Any]:
    corruptions = {"fog": {"1": 10.0, "mean": 10.0}, "contrast": {"1": 30.0, "mean": 30.0}}
    return {"results": {"clean": {"top1": top1}, "corruptions": corruptions}, "kin": kin, "steps": 7}


@pytest.fixture
def config() -> dict[str, Any]:
    learning = TrainConfig(max_steps=7)
    groups = (DataConfig(), StudentConfig(student="test_vit", teachers=("ema",)), learning, OutputConfig())
    found = as_dict(*groups, *(group() for group in GROUPS if group is not MixingConfig), MixingConfig())
    return {**found, "augment": ["transinv"], "crop": "none", "flip": False}


def tell(tracking, folder, config, objective):
    """A run of a student and a baseline, and its figures after both."""
    tracking.kin = ["contrast"]
    tracking.open(TRANSINV, folder, objective, config)
    line = {"step": 7, "student/total": 2.5, "learning_rate": 0.1}
    learned = {"p": [[0.25, 0.75], [1.0, 0.0]], "q": [0.1, 0.2], "r": [0.4, 0.6]}
    tracking.accelerator.log(scalars(line, learned, ["light", "ema"], ["noise", "blur"]), step=7)
    tracking.score(row_of(60.0, ["contrast"]))
    tracking.overrides = {"method": "supervised", "augment": []}
    tracking.open(CROP_FLIP, folder / "baselines" / "crop_flip", Supervised(tiny_vit()), {**config, "crop": "pad"})
    tracking.accelerator.log({"train/loss": 3.5}, step=7)
    tracking.score(row_of(50.0, []))
    is_new = tracking.open(TRANSINV, folder, objective, config)
    figures = [folder / f"{name}.png" for name in ("selection", "corruption_heatmap")]
    for path in figures:
        Image.new("RGB", (6, 4), (200, 30, 10)).save(path)
    tracking.draw(figures, 7)
    tracking.close()
    return is_new


def test_tensorboard_has_scalars_images_and_settings_of_each_row(tmp_path, config):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=str(tmp_path))
    tracking = Tracking(accelerator, "tensorboard", "multi_teacher", tmp_path)
    assert not tell(tracking, tmp_path, config, tiny_trainer(tmp_path / "run").objective)
    found = {}
    for name, folder in ((TRANSINV, tmp_path), (CROP_FLIP, tmp_path / "baselines" / "crop_flip")):
        events = EventAccumulator(str(folder / "multi_teacher"))
        events.Reload()
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        settings = HParamsPluginData.FromString(content).session_start_info.hparams
        last = {tag: events.Scalars(tag)[-1] for tag in events.Tags()["scalars"]}
        assert {one.step for one in last.values()} == {7}
        found[name] = {tag: one.value for tag, one in last.items()}, settings, events
    values, settings, events = found[TRANSINV]
    expected = {"train/loss": 2.5, "train/learning_rate": 0.1, "p/light/noise": 0.25, "p/light/blur": 0.75}
    expected |= {"p/ema/noise": 1.0, "p/ema/blur": 0.0, "q/light": 0.1, "q/ema": 0.2, "r/light": 0.4, "r/ema": 0.6}
    expected |= {"eval/top1": 60.0, "eval/corrupted": 20.0, "eval/no_kin": 10.0}
    assert values == pytest.approx(expected)
    assert {tag for tag in events.Tags()["images"]} == {"figures/selection", "figures/corruption_heatmap"}
    picture = events.Images("figures/selection")[0]
    assert (picture.width, picture.height, picture.step) == (6, 4, 7)
    assert {"tolerance", "learning_rate", "augment_learning_rate"} <= set(settings)
    assert not {"ait_lambda", "hard_augmenter", "teach_sort", "cutout_size", "report_to"} & set(settings)
    values, settings, events = found[CROP_FLIP]
    assert values == pytest.approx({"train/loss": 3.5, "eval/top1": 50.0, "eval/corrupted": 20.0, "eval/no_kin": 10.0})
    assert settings["crop"].string_value == "pad" and not {"tolerance", "augment_learning_rate"} & set(settings)
    assert not events.Tags()["images"]
    assert {path.parent.name for path in tmp_path.rglob("*tfevents*")} == {"multi_teacher"}  # no run of settings alone


@dataclass
class Recorded:
    """Stands in for a tracker and its accelerator: notes what they are given."""

    calls: list[tuple] = field(default_factory=list)
    trackers: list[Any] = field(default_factory=list)

    @property
    def project_configuration(self):
        return self

    def init_trackers(self, project, config, init_kwargs):
        self.calls.append((project, config, *init_kwargs.values()))
        self.trackers = [self]

    def log(self, values, step):
        self.calls[-1] += (values,)

    def finish(self):
        pass


def test_wandb_has_a_run_for_each_row_in_the_project_of_its_variable(tmp_path, config, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("WANDB_NAME", raising=False)
    told = Recorded()
    tell(
        Tracking(told, "wandb", "multi_teacher", tmp_path), tmp_path, config, tiny_trainer(tmp_path / "run").objective
    )
    first, second, again = told.calls
    assert {project for project, *_ in told.calls} == {"mine"}
    assert "tolerance" in first[1] and "tolerance" not in second[1] and again[1] == first[1]
    names = [how["name"] for _, _, how, *_ in told.calls]
    assert names == [tmp_path.name, f"{tmp_path.name}, crop + flip", tmp_path.name]
    assert first[2] == again[2] and first[2]["resume"] == "allow" and first[2]["id"] != second[2]["id"]
    assert first[-1] == {"eval/top1": 60.0, "eval/corrupted": 20.0, "eval/no_kin": 10.0}


@pytest.mark.parametrize(("report_to", "variable"), [("wandb", "WANDB_PROJECT"), ("trackio", "TRACKIO_PROJECT")])
def test_a_project_is_the_recipes_where_no_variable_names_one(report_to, variable, tmp_path, config, monkeypatch):
    monkeypatch.delenv(variable, raising=False)
    told = Recorded()
    Tracking(told, report_to, "train", tmp_path).open("row", tmp_path, Supervised(tiny_vit()), config)
    assert told.calls[0][0] == "train" and told.calls[0][2]["name"].startswith(tmp_path.name)


def test_tensorboards_folder_does_not_follow_the_projects_of_others(tmp_path, config, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    told = Recorded()
    Tracking(told, "tensorboard", "train", tmp_path).open("row", tmp_path, Supervised(tiny_vit()), config)
    assert told.calls[0][0] == "train"
