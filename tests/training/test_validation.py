"""A run that is measured while it trains: undisturbed, resumed to the bit, at its best, ended early, extended."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hf_transinv.config import DataConfig, OutputConfig, TrainConfig, check_validation
from hf_transinv.errors import InputError
from hf_transinv.record import read_metrics
from hf_transinv.training.checkpointing import checkpoints
from hf_transinv.training.optim import rate_at
from hf_transinv.training.validation import open_validation
from tests.tiny_run import random_split, tensors_of, tiny_data, tiny_trainer, tiny_vit
from tests.training.test_trainer import assert_equal, content

MEASURED = OutputConfig(eval_steps=2)
BEST = OutputConfig(
    eval_steps=2,
    validation_corruptions=("contrast", "gaussian_noise"),
    load_best_model_at_end=True,
    metric_for_best_model="loss",
    early_stopping_patience=9,
)


def lines_of(folder: Path, of_eval: bool) -> list[dict]:
    lines = read_metrics(folder / "metrics.jsonl")
    return [
        {name: value for name, value in line.items() if name != "images_per_second"}
        for line in lines
        if ("eval/top1" in line) == of_eval
    ]


def test_a_measured_run_has_the_bits_of_one_that_is_not(tmp_path):
    """With dropout, whose numbers come from the generators that a measurement must leave alone."""
    for name, output in (("not", None), ("measured", BEST)):
        tiny_trainer(tmp_path / name, output=output, dropout=0.2, save_total_limit=9).train()
    for step in (4, 8):
        one, other = (content(tmp_path / name / f"checkpoints/step_{step:08d}") for name in ("not", "measured"))
        assert "validation" not in one["training"]
        del other["training"]["validation"], other["weights"]["best.safetensors"]
        assert_equal(one, other)
    assert lines_of(tmp_path / "not", False) == lines_of(tmp_path / "measured", False)
    assert [line["step"] for line in lines_of(tmp_path / "measured", True)] == [2, 4, 6, 8]
    assert not lines_of(tmp_path / "not", True)


@pytest.mark.parametrize(("max_steps", "expected"), [(5, [2, 4, 5]), (4, [2, 4])])
def test_the_last_step_is_measured_once(tmp_path, max_steps, expected):
    tiny_trainer(tmp_path, output=MEASURED, max_steps=max_steps).train()
    assert [line["step"] for line in lines_of(tmp_path, True)] == expected


def test_the_figures_are_those_of_plain_pytorch(tmp_path):
    trainer = tiny_trainer(tmp_path, output=MEASURED, max_steps=2)
    trainer.train()
    split = random_split(24)
    student = copy.deepcopy(trainer.objective.players["student"]).eval()
    with torch.no_grad():
        logits = student(split.images.float() / 255)
    (line,) = lines_of(tmp_path, True)
    assert line.keys() == {"step", "eval/top1", "eval/loss"}
    assert line["eval/top1"] == pytest.approx(100 * (logits.argmax(1) == split.labels).float().mean().item())
    assert line["eval/loss"] == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-5)


def test_resumed_equals_uninterrupted_to_the_bit(tmp_path):
    """Interrupted at step 3, between two measurements; the best so far and the patience go on."""
    options = {"output": BEST, "dropout": 0.2, "max_steps": 9, "save_steps": 3, "save_total_limit": 9}
    whole = tiny_trainer(tmp_path / "whole", **options)
    whole.train()
    half = tiny_trainer(tmp_path / "half", **options)
    half.train()
    torch.manual_seed(77)
    resumed = tiny_trainer(tmp_path / "half", **options)
    resumed.resume(tmp_path / "half" / "checkpoints" / "step_00000003")
    assert resumed.validation.best_step == 2
    resumed.train()
    for step in (6, 9):
        name = f"checkpoints/step_{step:08d}"
        assert_equal(content(tmp_path / "whole" / name), content(tmp_path / "half" / name), name)
    assert lines_of(tmp_path / "whole", True) == lines_of(tmp_path / "half", True)
    assert whole.validation.told() == resumed.validation.told()


def test_a_checkpoint_of_before_is_gone_on_from(tmp_path):
    """An earlier version evaluated a held-out share at the end alone; now it is measured after the last step."""
    tiny_trainer(tmp_path, max_steps=4).train()
    resumed = tiny_trainer(tmp_path, output=OutputConfig(), max_steps=4)
    resumed.resume(tmp_path / "checkpoints" / "step_00000004")
    assert resumed.is_over and resumed.validation.told() == {"split": "val", "figures": {}}


@pytest.mark.parametrize("metric", ["loss", "top1", "corrupted"])
def test_the_best_student_is_that_of_the_best_figure(tmp_path, metric):
    """The oracle looks at all students that were measured; the last one is made the worst."""
    output = OutputConfig(**{**vars(BEST), "metric_for_best_model": metric, "early_stopping_patience": None})
    trainer = tiny_trainer(tmp_path, output=output, learning_rate=0.3)
    students, measure = {}, trainer.validation.measure

    def spy(step):
        if step == 8:
            with torch.no_grad():
                for parameter in trainer.objective.players["student"].parameters():
                    parameter.mul_(30)
        students[step] = copy.deepcopy(trainer.objective.players["student"].state_dict())
        return measure(step)

    trainer.validation.measure = spy
    trainer.train()
    figures = {line["step"]: line[f"eval/{metric}"] for line in lines_of(tmp_path, True)}
    sign = -1 if metric == "loss" else 1
    best = max(figures, key=lambda step: (sign * figures[step], -step))
    told = trainer.validation.told()
    assert (told["step"], told["metric"], told["value"]) == (best, metric, figures[best])
    saved = load_file(checkpoints(tmp_path / "checkpoints")[-1] / "best.safetensors")
    trainer.finish()
    for name, tensor in trainer.objective.players["student"].state_dict().items():
        assert torch.equal(tensor, students[best][name]) and torch.equal(tensor, saved[f"student.{name}"])


class Remembering(torch.nn.Linear):
    """As timm's LeViT does: in eval mode what follows from the weights is computed once, and dropped by train()."""

    kept = None

    def forward(self, features):
        if self.training:
            return super().forward(features)
        self.kept = self.weight.detach().clone() if self.kept is None else self.kept
        return F.linear(features, self.kept, self.bias)

    def train(self, mode=True):
        self.kept = None if mode else self.kept
        return super().train(mode)


def test_the_best_student_answers_by_its_own_weights(tmp_path):
    """A network that remembers what it computed from the weights of another step would answer by those."""
    accelerator, student = tiny_trainer(tmp_path).accelerator, tiny_vit()
    student.network.head = Remembering(32, 3)
    validation = open_validation({"student": student}, tiny_data(), accelerator, BEST, 5.0)
    images = random_split(24).images.float() / 255
    first = validation.measure(1)
    with torch.no_grad():
        expected = student.eval()(images)
        student.train()
        student.network.head.weight.mul_(-30)
        assert validation.measure(2)["eval/loss"] > first["eval/loss"]
        validation.load_best()
        assert torch.equal(student.eval()(images), expected)


def test_a_run_ends_early_and_is_then_over(tmp_path):
    """A student that hardly moves has the same top-1 each time: the first one stays the best."""
    output = OutputConfig(eval_steps=1, metric_for_best_model="top1", early_stopping_patience=3)
    options = {"output": output, "max_steps": 20, "learning_rate": 1e-9, "save_steps": 2}
    trainer = tiny_trainer(tmp_path, **options)
    trainer.train()
    assert trainer.step == 4 and trainer.is_over and not trainer.stopped
    told = trainer.validation.told()
    assert (told["step"], told["stopped_early"], told["is_loaded"], told["patience"]) == (1, True, False, 3)
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step_00000004"
    resumed = tiny_trainer(tmp_path, **options)
    resumed.resume(checkpoints(tmp_path / "checkpoints")[-1])
    assert resumed.is_over
    resumed.train()
    assert resumed.step == 4 and resumed.validation.told() == told


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path):
    trainer = tiny_trainer(tmp_path, output=BEST)
    with torch.no_grad():
        next(trainer.objective.players["student"].parameters()).fill_(torch.nan)
    trainer.validation.measure(1)
    assert (trainer.validation.best_step, trainer.validation.waited) == (0, 1)
    before = tensors_of(trainer)
    trainer.finish()
    after = tensors_of(trainer)
    assert all(torch.equal(after[name].nan_to_num(7), before[name].nan_to_num(7)) for name in before)


def test_a_share_of_a_run_without_measurements_is_evaluated_once(tmp_path):
    """As a dataset without a test split always was; with one, the held-out part is measured after the last step."""
    data, accelerator, students = tiny_data(), None, {"student": tiny_vit()}
    accelerator = tiny_trainer(tmp_path).accelerator
    alone = tiny_data()
    alone.validation = alone.evaluation
    assert open_validation(students, alone, accelerator, OutputConfig(), 5.0) is None
    assert open_validation(students, alone, accelerator, MEASURED, 5.0).every == 2
    assert open_validation(students, data, accelerator, OutputConfig(), 5.0).every is None
    data.validation = None
    assert open_validation(students, data, accelerator, OutputConfig(), 5.0) is None


def test_epochs_are_counted_in_steps(tmp_path):
    accelerator, students = tiny_trainer(tmp_path).accelerator, {"student": tiny_vit()}
    for epochs, steps in ((1.0, 5), (0.5, 2), (0.01, 1), (2.5, 12)):
        validation = open_validation(students, tiny_data(), accelerator, OutputConfig(eval_epochs=epochs), 5.0)
        assert validation.every == steps
    with pytest.raises(InputError, match="give --eval_steps instead"):
        open_validation(students, tiny_data(), accelerator, OutputConfig(eval_epochs=1.0), float("inf"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eval_steps": 2, "eval_epochs": 1.0}, "eval_steps or eval_epochs, not both"),
        ({"eval_steps": 0}, "eval_steps must be at least 1"),
        ({"eval_epochs": -1.0}, "eval_epochs must be positive"),
        ({"load_best_model_at_end": True}, "say how often"),
        ({"early_stopping_patience": 2}, "say how often"),
        ({"eval_steps": 2, "early_stopping_patience": 0}, "early_stopping_patience must be at least 1"),
        ({"eval_steps": 2, "metric_for_best_model": "top1"}, "give one of them"),
        ({"eval_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "f1"}, "not one of loss, top1"),
        ({"eval_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "corrupted"}, "name the corr"),
        ({"validation_severity": 2}, "give those as well"),
        ({"validation_corruptions": ("fog",), "validation_severity": 6}, "not one of 1, 2, 3, 4, 5"),
        ({"extend_to_steps": 9}, "give --resume_from latest"),
    ],
)
def test_options_that_say_nothing_are_refused(fields, said):
    with pytest.raises(InputError, match=said):
        OutputConfig(**fields)


@pytest.mark.parametrize("output", [{"eval_steps": 2}, {"eval_epochs": 1.0}, {"validation_corruptions": ("fog",)}])
def test_the_test_split_is_never_measured_on_while_training(output):
    with pytest.raises(InputError, match=r"--validation_share 0\.1\) or name another split \(--validation_split"):
        check_validation(DataConfig(), OutputConfig(**output))
    check_validation(DataConfig(validation_share=0.1), OutputConfig(**output))
    check_validation(DataConfig(validation_split="val"), OutputConfig(**output))


def test_the_best_student_and_its_average_in_its_place_are_refused_together():
    output = OutputConfig(eval_steps=1, load_best_model_at_end=True)
    with pytest.raises(InputError, match="ema instead exports their average"):
        check_validation(DataConfig(validation_share=0.1), output, "instead")
    check_validation(DataConfig(validation_share=0.1), output, "beside")


# More steps


def test_an_extended_run_has_the_rate_of_the_new_length(tmp_path):
    """Finished at 4, extended to 8, stopped at 6 and resumed: the bits of the extension that was not disturbed."""
    options = {"max_steps": 4, "save_steps": 2, "logging_steps": 1, "warmup_ratio": 0.0, "save_total_limit": 9}
    lengths, config = ((0, 4), (4, 8)), TrainConfig(learning_rate=0.05, warmup_ratio=0.0, max_steps=4)
    tiny_trainer(tmp_path, **options).train()
    for start in (4, 6):
        extended = tiny_trainer(tmp_path, lengths=lengths, **options)
        extended.resume(tmp_path / f"checkpoints/step_{start:08d}")
        assert extended.optimizers["student"].param_groups[0]["lr"] == rate_at(config, 8, start)
        extended.train()
        end = content(tmp_path / "checkpoints/step_00000008")
        assert extended.step == 8
        if start == 4:
            whole = end
    assert_equal(whole, end)
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates == [rate_at(config, 4 if step <= 4 else 8, step) for step in range(1, 9)]
    assert rates[3] == rates[7] == 0 and rate_at(config, 8, 4) == pytest.approx(0.025)


def test_a_row_that_begins_later_is_extended_at_the_same_step(tmp_path):
    """A row that was trained to 4 and extended, and one that was extended before it began."""
    options = {"max_steps": 4, "save_steps": 4, "warmup_ratio": 0.2}
    tiny_trainer(tmp_path / "one", **options).train()
    one = tiny_trainer(tmp_path / "one", lengths=((0, 4), (4, 8)), **options)
    one.resume(tmp_path / "one/checkpoints/step_00000004")
    one.train()
    other = tiny_trainer(tmp_path / "other", lengths=((0, 4), (4, 8)), **options)
    other.train()
    assert_equal(tensors_of(one), tensors_of(other))
