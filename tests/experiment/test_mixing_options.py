"""Regularisers from the command line to the trainer: what is refused, what is recorded, which row has what."""

from dataclasses import replace

import pytest
import torch
import yaml

from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.config import DataConfig, MixingConfig, OutputConfig, TrainConfig, as_dict
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.batch_size import check_batch_size, fitted
from hf_transinv.experiment.launch import check_same_run
from hf_transinv.experiment.methods import GROUPS, checked_mixing
from hf_transinv.experiment.session import Session
from hf_transinv.hub.card import render_card
from hf_transinv.objectives.supervised import Supervised
from tests.hub.test_card import record, text_of
from tests.tiny_run import tiny_vit

DIGITS = DataConfig("digits/target", image_size=32)


def checked(*flags, data=DIGITS):
    return checked_mixing(data, parse(GROUPS, flags))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--mixup -0.1", "mixup must be at least 0"),
        ("--cutmix -1", "cutmix must be at least 0"),
        ("--mixup_prob 0.5", "mixup_prob is for mixup or cutmix"),
        ("--mixup 1 --mixup_prob 0", r"mixup_prob must be in \(0, 1\]"),
        ("--mixup 1 --mixup_switch_prob 0.5", "chooses between mixup and cutmix: give both"),
        ("--mixup 1 --cutmix 1 --mixup_switch_prob 1", "leave out the other"),
        ("--random_erasing 1.5", r"random_erasing must be in \[0, 1\]"),
        ("--random_erasing_mode const", "random_erasing_mode is for random_erasing"),
        ("--random_erasing 1 --random_erasing_mode rand", "not one of pixel, const"),
        ("--class_weights even", "not one of balanced"),
        ("--sampler even", "not one of balanced"),
        ("--sampler balanced --class_weights balanced", "both even out the classes"),
        ("--method hard --mixup 1", "hard takes no MixUp: its turns change by the disagreement"),
        ("--method hard --random_erasing 0.2", "hard takes no random erasing"),
        ("--method hard --class_weights balanced", "give it a hard_ce_weight"),
        ("--augment teachaugment --cutmix 1", "an image by its one class, and a mixed image has two"),
    ],
)
def test_what_cannot_be_is_refused(flags, said):
    with pytest.raises(InputError, match=said):
        checked(*flags.split())


def test_a_stream_has_no_balanced_sampler():
    with pytest.raises(InputError, match=r"a stream never has all of them.*class_weights balanced is for"):
        checked("--sampler", "balanced", data=replace(DIGITS, streaming=True))
    assert checked("--class_weights", "balanced", data=replace(DIGITS, streaming=True))


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        ("", 1),
        ("--random_erasing 0.5 --sampler balanced", 1),
        ("--mixup 1", 2),
        ("--cutmix 1 --augment transinv", 2),
        ("--mixup 1 --method ait", 4),
        ("--mixup 1 --method multi_ait", 2),
        ("--method hard --class_weights balanced --hard_ce_weight 1", 1),
        ("--augment teachaugment --random_erasing 1", 1),
    ],
)
def test_pairs_need_batches_of_so_many_images(flags, unit):
    assert checked(*flags.split())[1] == unit


def test_a_batch_is_split_into_pairs():
    loop = TrainConfig(max_steps=1, batch_size=12, gradient_accumulation_steps=2)
    check_batch_size(loop, 3, 2)
    with pytest.raises(InputError, match="processes x 2 micro-batches of 4 images or a multiple"):
        check_batch_size(loop, 3, 4)
    assert fitted(loop, 11, 1, 2).batch_size == 8
    assert fitted(loop, 11, 1).batch_size == 10
    with pytest.raises(InputError, match="for 2 processes x micro-batches, which need 2 each"):
        fitted(loop, 3, 1, 2)


def test_a_run_that_was_begun_before_there_were_any_is_resumed():
    check_same_run({}, as_dict(MixingConfig()))
    with pytest.raises(InputError, match=r"mixup was None, is 0\.2"):
        check_same_run({}, as_dict(MixingConfig(mixup=0.2)))


def test_baselines_have_the_same_classes_and_plain_images():
    config = MixingConfig(mixup=0.2, cutmix=1, mixup_prob=0.5, random_erasing=0.1, sampler="balanced")
    assert config.titles == ["MixUp", "CutMix", "random erasing"]
    assert config.of_classes == MixingConfig(sampler="balanced")


def test_rows_of_a_comparison_differ_in_it_and_are_checked(tmp_path):
    content = {"dataset": "digits/target", "student": "wrn10_1_cifar", "max_steps": 2}
    rows = {"plain": None, "mixup": {"mixup": 0.2, "sampler": "balanced"}}
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(content | {"rows": rows}, sort_keys=False))
    plain, mixed = read_comparison(["--config", str(path)]).rows
    assert [checked_mixing(row.data, row.options)[0].mixup for row in (plain, mixed)] == [0.0, 0.2]
    path.write_text(yaml.safe_dump(content | {"rows": {"odd": {"method": "hard", "cutmix": 1.0}}}))
    with pytest.raises(InputError, match="row 'odd': method hard takes no CutMix"):
        read_comparison(["--config", str(path)])


def test_a_session_weighs_and_samples_the_noisy_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    loop, output = TrainConfig(max_steps=2, batch_size=20), OutputConfig(output_dir=str(tmp_path / "out"))
    mixing = MixingConfig(mixup=0.2, class_weights="balanced")
    noisy = replace(DIGITS, label_noise=0.5)
    session = Session("train", noisy, loop, output, as_dict(noisy, loop, mixing), 2)
    assert session.record.content["config"]["mixup"] == 0.2
    labels = session.data.train.with_label_noise(0.5).labels
    counts = labels.bincount(minlength=5)
    student = tiny_vit(5)
    trainers = []
    for session.mixing in (MixingConfig(), mixing, MixingConfig(sampler="balanced")):
        trainers.append(session.trainer("row", Supervised(student), "pad", True, tmp_path, loop))
    plain, weighted, sampled = trainers
    assert plain.setup.mixing is sampled.setup.mixing is None
    found = weighted.setup.mixing.class_weights
    torch.testing.assert_close(found, (len(labels) / (5 * counts)).float())
    assert counts.min() < counts.max() and found[labels].mean().item() == pytest.approx(1)
    epochs = [torch.cat([trainer.feeds["student"].next_batch()[1] for _ in range(5)]) for trainer in trainers]
    assert torch.equal(epochs[0], epochs[1])
    assert epochs[2].bincount().tolist() == [20] * 5 != epochs[0].bincount().tolist()


def test_the_card_says_it():
    run = record()
    plain = text_of(render_card(run))
    assert "mixed in pairs" not in plain and "equally often" not in plain and "erased" not in plain
    run["config"] |= as_dict(MixingConfig(mixup=0.2, cutmix=1, random_erasing=0.25, class_weights="balanced"))
    card = " ".join(text_of(render_card(run)).split())
    assert "mixed in pairs by MixUp (alpha 0.2) and CutMix (alpha 1). A rectangle was erased from 25 % of" in card
    assert "weighted by the inverse frequency of the classes." in card
    run["config"] |= as_dict(MixingConfig(sampler="balanced"))
    assert "It was shown every class equally often." in text_of(render_card(run))
