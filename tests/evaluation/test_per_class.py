"""Scores of classes against counts taken one image at a time, and which errors and pictures are kept."""

import json
import types

import pytest
import torch

from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate, evaluation_markdown
from hf_transinv.evaluation.class_table import class_markdown
from hf_transinv.evaluation.error_pictures import ErrorPictures
from hf_transinv.evaluation.per_class import class_scores
from hf_transinv.evaluation.result import ClassScores, Result
from hf_transinv.evaluation.scores import COLUMNS
from hf_transinv.evaluation.splits import TensorSplit
from hf_transinv.formats.typed_json import read_as
from tests.evaluation.test_evaluation import digits, make_classifier, make_split

# Class d has no images and is answered once, class e is never answered, class f is neither.
NAMES = list("abcdef")
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 4, 4]
ANSWERS = [0, 0, 0, 1, 1, 1, 0, 2, 3, 0, 2]


def scores_of(labels, answers, confidences=None):
    """What `image_scores` gives, as far as classes need it."""
    scores = torch.zeros(len(labels), len(COLUMNS))
    known = {
        "top1": [float(label == answer) for label, answer in zip(labels, answers, strict=True)],
        "confidence": confidences or [0.5] * len(labels),
        "label": labels,
        "predicted": answers,
    }
    for name, values in known.items():
        scores[:, COLUMNS.index(name)] = torch.tensor(values, dtype=torch.float32)
    return scores


def by_hand(labels, answers, names):
    """Every score from its definition, an image at a time."""
    pairs = list(zip(labels, answers, strict=True))
    support = [labels.count(c) for c in range(len(names))]
    recall, precision, f1 = [], [], []
    for c in range(len(names)):
        hits, said = sum(pair == (c, c) for pair in pairs), answers.count(c)
        recall.append(100 * hits / support[c] if support[c] else None)
        precision.append(100 * hits / said if said else None)
        both = (recall[-1] or 0) + (precision[-1] or 0)
        mean = 2 * (recall[-1] or 0) * (precision[-1] or 0) / both if both else 0.0
        f1.append(mean if support[c] else None)
    present = [c for c in range(len(names)) if support[c]]
    return {
        "names": names,
        "support": support,
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "macro_f1": sum(f1[c] for c in present) / len(present),
        "balanced_accuracy": sum(recall[c] for c in present) / len(present),
        "confusion": [[*pair, pairs.count(pair)] for pair in sorted(set(pairs))],
    }


def assert_equal(found, expected):
    for name, values in expected.items():
        if isinstance(values, list) and name in ("recall", "precision", "f1"):
            assert [value is None for value in found[name]] == [value is None for value in values], name
            pairs = zip(found[name], values, strict=True)
            assert all(one is None or one == pytest.approx(other) for one, other in pairs), name
        else:
            assert found[name] == (pytest.approx(values) if isinstance(values, float) else values), name


def test_classes_equal_those_by_hand():
    found = class_scores(scores_of(LABELS, ANSWERS), NAMES)
    assert_equal(found, by_hand(LABELS, ANSWERS, NAMES))
    a, b, c, d, e, f = found["f1"]
    assert (d, e, f) == (None, 0.0, None), "absent; never answered; neither"
    assert found["precision"][3:] == [0.0, None, None] and found["recall"][3:] == [None, 0.0, None]
    assert found["macro_f1"] == pytest.approx((a + b + c + 0) / 4), "absent classes are left out"
    assert found["balanced_accuracy"] == pytest.approx(100 * (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)


def test_an_evaluation_has_its_classes():
    """Of seven classes, one without images; in batches, from the answers of the model to single images."""
    split, classifier = make_split(200), make_classifier().eval()
    split.labels[split.labels == 3] = 4
    with torch.no_grad():
        answers = [int(classifier(image[None] / 255).argmax()) for image in split.images]
    result = evaluate(make_classifier(), split, batch_size=64, show_progress=False)
    assert_equal(result["classes"], by_hand(split.labels.tolist(), answers, split.label_names))
    right = sum(count for label, answer, count in result["classes"]["confusion"] if label == answer)
    assert right / 2 == result["clean"]["top1"] and result["classes"]["support"][3] == 0
    read = read_as(Result, json.loads(json.dumps(result)), "result").classes
    assert read is not None and read.macro_f1 == result["classes"]["macro_f1"]


def test_the_surest_errors_are_kept_the_first_of_equals():
    labels, answers = [0] * 50, [index % 2 for index in range(50)]
    confidences = [0.5 + (index // 10) / 20 for index in range(50)]
    found = class_scores(scores_of(labels, answers, confidences), ["a", "b"])["errors"]
    rows = [*range(41, 50, 2), *range(31, 40, 2), *range(21, 30, 2), *range(11, 20, 2)]
    assert found == [[row, 0, 1, pytest.approx(confidences[row])] for row in rows]
    assert class_scores(scores_of([0, 1], [0, 1]), ["a", "b"])["errors"] == []


@pytest.mark.parametrize("batch_size", [7, 300])
def test_pictures_are_those_of_the_errors(batch_size):
    split, pictures = make_split(100), ErrorPictures()
    split.images[50:] = split.images[:50]  # equal confidences, too
    options = {"batch_size": batch_size, "corruptions": ("contrast",), "severities": (5,), "show_progress": False}
    errors = evaluate(make_classifier(), split, error_pictures=pictures, **options)["classes"]["errors"]
    assert len(errors) == 20 and [error[3] for error in errors] == sorted((error[3] for error in errors), reverse=True)
    assert torch.equal(pictures.images(), split.images[[error[0] for error in errors]])
    streamed = ErrorPictures()
    found = evaluate(make_classifier(5), digits(), error_pictures=streamed, show_progress=False)["classes"]["errors"]
    assert len(streamed.kept) == len(found) == 20


def test_two_processes_keep_the_pictures_of_one(monkeypatch):
    """Each of every other batch, and all confidences equal: the first errors of the split."""
    split = make_split(100)
    scores = scores_of(split.labels.tolist(), [0] * 100)
    errors = class_scores(scores, split.label_names)["errors"]
    of_both = [ErrorPictures(), ErrorPictures()]
    for rank, pictures in enumerate(of_both):
        for batch in TensorSplit(split).batches(9, rank, 2):
            pictures.offer(batch, scores[9 * batch.number : 9 * batch.number + len(batch.labels)])
    monkeypatch.setattr("accelerate.utils.gather_object", lambda kept: [*of_both[1].kept, *kept])
    two = types.SimpleNamespace(num_processes=2)
    assert torch.equal(of_both[0].images(two), split.images[[error[0] for error in errors]])


def test_no_errors_no_pictures():
    assert ErrorPictures().images() is None


def test_few_classes_are_all_in_the_table_and_of_many_the_worst():
    few = read_as(ClassScores, class_scores(scores_of(LABELS, ANSWERS), NAMES), "classes")
    text = class_markdown(few)
    assert text.startswith("Macro F1 45.8 %, balanced accuracy 47.9 %, over the 4 of 6 classes with images. By class")
    assert "| a | 4 | 75.0 | 60.0 | 66.7 |" in text and "| d | 0 | – | 0.0 | – |" in text
    assert "| e | 2 | 0.0 | – | 0.0 |" in text and text.count("\n|") == 8
    labels = [number for number in range(30) for _ in range(10)]
    answers = [(number + 1) % 30 if image < number % 7 else number for number in range(30) for image in range(10)]
    many = class_scores(scores_of(labels, answers), [f"c|{number}" for number in range(30)])
    text = class_markdown(read_as(ClassScores, many, "classes"))
    worst = sorted(range(30), key=lambda number: many["f1"][number])[:5]
    rows = text.splitlines()[4:]
    assert [row.split(" | ")[0] for row in rows] == [f"| c\\|{number}" for number in worst]
    assert "The 5 classes with the lowest F1, in percent:" in text and "with images" not in text


def test_the_page_of_an_evaluation_has_the_table():
    result = evaluate(make_classifier(), make_split(), show_progress=False)
    assert "balanced accuracy" in evaluation_markdown("a on b", result)
    del result["classes"]  # as earlier versions wrote it
    assert "balanced accuracy" not in evaluation_markdown("a on b", result)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("support", [1]),
        ("f1", []),
        ("confusion", [[0, 6, 1]]),
        ("confusion", [[3, 0, 1]]),
        ("errors", [[0, -1, 1, 0.5]]),
        ("errors", [[-1, 0, 1, 1]]),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(field, value):
    content = class_scores(scores_of(LABELS, ANSWERS), NAMES) | {field: value}
    with pytest.raises(InputError, match=field):
        read_as(ClassScores, content, "classes")
