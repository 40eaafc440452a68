"""Label noise on its whole way: from the configuration to the batches of every process, a group, and the card.

The law of the noise itself is tested in tests/data/test_resident.py.
"""

from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate import Accelerator

from hf_transinv.commands import compare
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.config import DataConfig
from hf_transinv.data.batches import Feed
from hf_transinv.data.run_data import Data, open_data
from hf_transinv.errors import InputError
from hf_transinv.experiment.session import Session
from hf_transinv.hub.card import render_card
from tests.hub.test_card import record, text_of

BATCH, EPOCH = 20, 5  # digits/target has 100 training images


def digits(label_noise: float) -> Data:
    return open_data(DataConfig("digits/target", image_size=32, label_noise=label_noise), Accelerator(cpu=True))


def process(rank: int = 0, world: int = 1) -> SimpleNamespace:
    """The place of a process."""
    return SimpleNamespace(process_index=rank, num_processes=world)


def seen(feed: Feed, num_batches: int = EPOCH) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*(feed.next_batch() for _ in range(num_batches)), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_a_student_sees_the_noisy_labels_and_is_evaluated_on_the_true_ones():
    clean, noisy = digits(0.0), digits(0.5)
    (images, true), (same_images, drawn) = (seen(data.feed(BATCH, 3, process())) for data in (clean, noisy))
    assert torch.equal(images, same_images)
    assert 25 < (true != drawn).sum() < 55, "half of the labels, of which a fifth is right by chance"
    for part in ("images", "labels"):
        assert torch.equal(getattr(clean.evaluation, part), getattr(noisy.evaluation, part))


def test_no_noise_feeds_the_split_as_it_is():
    data = digits(0.0)
    assert data.feed(BATCH, 3, process()).split is data.train


def test_the_noise_depends_neither_on_the_seed_nor_on_the_processes():
    data = digits(0.5)
    by_image = [
        {image.numpy().tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
        for images, labels in (seen(data.feed(BATCH, seed, process())) for seed in (1, 2))
    ]
    assert by_image[0] == by_image[1]
    shares = [seen(data.feed(BATCH, 1, process(rank, 2)), 1)[1] for rank in range(2)]
    assert torch.equal(torch.cat(shares), seen(data.feed(BATCH, 1, process()), 1)[1])


def test_groups_of_a_comparison_have_noise_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    content = {"dataset": "digits/target", "image_size": 32, "student": "wrn10_1_cifar", "max_steps": 2}
    content |= {"groups": {"some": {"label_noise": 0.3}, "more": {"label_noise": 0.8}}, "rows": {"plain": None}}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    comparison = read_comparison(["--config", "compare.yaml", "--seeds", "0", "1", "--output_dir", "out"])
    first = comparison.rows[0]
    session = Session("compare", first.data, first.train, comparison.output, dict(comparison.config))
    build, labels = compare.build, {}
    for run in comparison.runs({}):
        build(session, run)
        labels[run.name] = session.data.feed(BATCH, 0, session.accelerator).split.labels
    true = session.data.train.labels
    changed = {name: (found != true).sum() for name, found in labels.items()}
    assert 0 < changed["some: plain, seed 0"] < changed["more: plain, seed 0"] < len(true)
    for group in ("some", "more"):
        assert torch.equal(labels[f"{group}: plain, seed 0"], labels[f"{group}: plain, seed 1"])


def test_rows_of_a_group_have_the_same_labels(tmp_path):
    content = {"dataset": "digits/target", "student": "wrn10_1_cifar", "max_steps": 2}
    content["rows"] = {"clean": None, "noisy": {"label_noise": 0.3}}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"label_noise cannot differ, since every row.*set it in a group"):
        read_comparison(["--config", str(tmp_path / "compare.yaml")])


def test_the_card_says_it():
    run = record()
    assert "labels were replaced" not in text_of(render_card(run))
    run["config"]["label_noise"] = 0.2
    said = "20 % of the training labels were replaced by labels drawn uniformly from all classes. It took 72 min"
    assert said in text_of(render_card(run))
