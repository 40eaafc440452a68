"""The names under which a tracker shows what a training says."""

from hf_transinv.training.tracked import scalars


def test_a_line_has_the_names_that_a_tracker_shows():
    line = {"step": 4, "epoch": 0.5, "learning_rate": 0.1, "student/total": 2.0, "student/task": 1.5}
    line |= {"augmentation/total": -1.0, "peer/total": 3.0}
    learned = {
        "p": [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]],
        "q": [0.1, 0.2, 0.3],
        "r": [0.2, 0.3, 0.5],
        "multipliers": [[1.0], [2.0], [3.0]],
        "gate/colour": 0.5,
    }
    assert scalars(line, learned, ["elastic", "light", "ema"], ["noise", "blur"]) == {
        "train/epoch": 0.5,
        "train/learning_rate": 0.1,
        "train/loss": 2.0,
        "train/task": 1.5,
        "augmentation/total": -1.0,
        "peer/total": 3.0,
        **{"p/elastic/noise": 0.25, "p/elastic/blur": 0.75, "p/light/noise": 0.5, "p/light/blur": 0.5},
        **{"p/ema/noise": 1.0, "p/ema/blur": 0.0, "q/elastic": 0.1, "q/light": 0.2, "q/ema": 0.3},
        **{"r/elastic": 0.2, "r/light": 0.3, "r/ema": 0.5},
        **{"multipliers/elastic": 1.0, "multipliers/light": 2.0, "multipliers/ema": 3.0, "gate/colour": 0.5},
    }


def test_what_is_measured_on_the_way_is_not_taken_for_the_evaluation():
    assert scalars({"step": 1, "eval/top1": 50.0}, {}, (), ()) == {"validation/top1": 50.0}


def test_no_number_is_lost_where_names_are_missing_or_occur_twice():
    assert scalars({}, {"q": [0.1, 0.2]}, ["a", "a"], ()) == {"q/a_1": 0.1, "q/a_2": 0.2}
    assert scalars({}, {"p": [[0.1, 0.9]]}, (), ()) == {"p/1/1": 0.1, "p/1/2": 0.9}
