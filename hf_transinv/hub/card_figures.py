"""The figures of a card: which of a run's it shows, where, and with which caption.

They lie in figures/ beside the card, in the student's folder as in a repository.
"""

from pathlib import PurePosixPath

from hf_transinv.formats.markdown import image
from hf_transinv.hub.recorded_run import Run

FOLDER = "figures"
_TOP = ("summary", "augmentation", "corruption_heatmap", "confusion", "errors")
"""What is shown near the top: the first of these that there is."""
_RESULTS = ("corruption_heatmap", "confusion")
_IN_FOLDER_ONLY = ("per_class", "errors", "curves")
_CAPTIONS = {
    "augmentation": "Images, and each primitive applied to them, with its probability p, for each teacher",
    "confusion": "Which classes are taken for which, in percent of the images of each",
    "corruption_heatmap": "Top-1 by corruption and severity",
    "errors": "The most confident errors, with the class above and the answer below",
    "selection": "r, q and p over the training",
    "summary": "An image under the most used primitives of each teacher, and top-1 by corruption before and after",
}


def at_the_top(run: Run) -> str:
    """One example picture or heat map, as a Markdown image; empty where the run has none."""
    return "".join(_images(run, _top_of(run)))


def of_results(run: Run) -> list[str]:
    """The figures of the evaluation that are not at the top."""
    return _images(run, [name for name in _by_stem(run) if name in _RESULTS and name not in _top_of(run)])


def of_training(run: Run) -> list[str]:
    """All others that a card shows: what was learned, and how."""
    elsewhere = (*_top_of(run), *_RESULTS, *_IN_FOLDER_ONLY)
    return _images(run, [name for name in _by_stem(run) if name not in elsewhere])


def shown_figures(run: Run) -> list[str]:
    """The figures that the card shows, as paths from the run's folder: to be copied to figures/ beside the card."""
    return [
        f"{FOLDER}/{file}"
        for stem, file in _by_stem(run).items()
        if stem in _top_of(run) or stem not in _IN_FOLDER_ONLY
    ]


def _by_stem(run: Run) -> dict[str, str]:
    """File names of the run's figures by their stems, in the order of the record."""
    names = [PurePosixPath(path) for path in run.figures]
    return {name.stem: name.name for name in names}


def _top_of(run: Run) -> list[str]:
    return [name for name in _TOP if name in _by_stem(run)][:1]


def _images(run: Run, stems: list[str]) -> list[str]:
    files = _by_stem(run)
    return [image(_CAPTIONS.get(stem, stem), f"{FOLDER}/{files[stem]}") for stem in stems]
