"""The picture of a whole run: drawn where there is something to compare, from what was learned and measured."""

import json
from types import SimpleNamespace

import pytest
import torch

from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.evaluation import evaluate
from hf_transinv.experiment.publish import _gain
from hf_transinv.objectives.sample import Sample
from tests.objectives.test_transinv import build
from tests.objectives.tiny import classifier


@pytest.fixture(scope="module")
def results():
    split = ResidentSplit.load(open_source("digits/target", split="test"), image_size=8, show_progress=False)
    options = {"severities": (2, 4), "show_progress": False}
    return [evaluate(classifier(5), split, corruptions=names, **options) for names in (("contrast", "fog"), ())]


def session_of(**rows):
    return SimpleNamespace(main_row="TransInv", rows={name: {"results": result} for name, result in rows.items()})


def test_the_gain_is_over_the_first_baseline_by_condition(results):
    under, _ = results
    (before, old), (after, new) = _gain(session_of(TransInv=under, plain=under, other=under))
    assert (before, after) == ("plain", "TransInv") and old == new
    contrast = under["corruptions"]["contrast"]
    assert list(new) == ["clean", "contrast", "fog"] and new["contrast"] == (contrast["2"] + contrast["4"]) / 2


def test_without_a_baseline_or_a_corruption_there_is_no_gain(results):
    under, clean = results
    assert _gain(session_of(TransInv=under)) is None
    assert _gain(session_of(TransInv=clean, plain=clean)) is None


@pytest.mark.parametrize("gain", [None, (("plain", {"fog": 1.0}), ("TransInv", {"fog": 2.0}))])
def test_the_summary_is_drawn_where_there_is_a_gain(tmp_path, gain):
    objective = build()
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, **objective.observe()}) + "\n")
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    objective.export_learned(Sample(tmp_path, images, torch.zeros(2), 0, ["a", "b"], gain))
    assert (tmp_path / "figures" / "summary.png").exists() == (gain is not None)
