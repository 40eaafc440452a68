"""Even classes: weights, and how often classes and rows occur."""

from itertools import chain

import pytest
import torch

from hf_transinv.data.balance import BalancedOrder, balanced_weights
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.errors import InputError

LABELS = torch.tensor([0] * 20 + [1] * 3 + [2] * 8)


def split(labels=LABELS, classes=3):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    return ResidentSplit(images.contiguous(), labels, [str(label) for label in range(classes)])


def rows_of(feed, batches):
    return [feed.next_batch()[0][:, 0, 0, 0].tolist() for _ in range(batches)]


def test_weights_are_inverse_to_the_counts_and_one_in_the_mean():
    weights = balanced_weights([20, 3, 8])
    torch.testing.assert_close(weights, torch.tensor([31 / 60, 31 / 9, 31 / 24]))
    assert weights[LABELS].mean().item() == pytest.approx(1)


def test_every_class_occurs_equally_often_and_every_row_of_it():
    order = BalancedOrder(LABELS, 3, 28, seed=4)
    seen = torch.zeros(len(LABELS), dtype=torch.int64)
    for epoch in range(7):
        rows = order(epoch)
        assert len(rows) == 28
        seen += torch.bincount(rows, minlength=len(LABELS))
        of_classes = [seen[label == LABELS] for label in range(3)]
        totals = [one.sum().item() for one in of_classes]
        assert max(totals) - min(totals) <= 1 and sum(totals) == 28 * (epoch + 1)
        assert all(one.max() - one.min() <= 1 for one in of_classes)
    assert order(0).tolist() != order(1).tolist()
    dealt = LABELS[order(0)][:27].view(9, 3).sort(1).values
    assert not (dealt == torch.arange(3)).all(), "shuffled, not one of each class after another"


def test_shares_and_resumes_are_the_same_order():
    alone = rows_of(ResidentFeed(split(), 8, 3, balanced=True), 9)
    shares = [rows_of(ResidentFeed(split(), 8, 3, rank, 2, balanced=True), 9) for rank in range(2)]
    assert [list(chain(*batch)) for batch in zip(*shares, strict=True)] == alone
    assert alone != rows_of(ResidentFeed(split(), 8, 4, balanced=True), 9)
    for stop in (0, 2, 3, 5):
        feed = ResidentFeed(split(), 8, 3, balanced=True)
        rows_of(feed, stop)
        resumed = ResidentFeed(split(), 8, 3, balanced=True)
        resumed.load_state_dict(feed.state_dict())
        assert rows_of(resumed, 9 - stop) == alone[stop:]


def test_an_epoch_has_as_many_batches_as_otherwise():
    assert (
        ResidentFeed(split(), 8, 3, balanced=True).batches_per_epoch == ResidentFeed(split(), 8, 3).batches_per_epoch
    )


def test_a_class_without_an_image_is_refused():
    with pytest.raises(InputError, match=r"label number 2, 3.*label_noise may have"):
        balanced_weights([5, 1, 0, 0])
    with pytest.raises(InputError, match="no training image has label number 3"):
        ResidentFeed(split(classes=4), 8, 0, balanced=True)
