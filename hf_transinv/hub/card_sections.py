"""What the card says, in words and tables; every function reads run.json's content and answers with Markdown.

Strings of users (names of models, data sets, labels) pass through `escape` or `code` before they stand in a page, and
what is not recorded is left out: a function answers with nothing, and the template has no section for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePath, PurePosixPath
from typing import Any
from urllib.parse import quote

from hf_transinv.data.embedded import EMBEDDED_NAMES
from hf_transinv.markdown import code, duration, escape, hub_link, number, plain, span, steps, table, words

_MARK = "\\*"
_MEASURES = {"mCE": "mCE", "mCE_alexnet": "mCE (AlexNet = 100)"}
_PRIMITIVES = {
    "contrast_brightness": "contrast and brightness",
    "geometric": "affine warps",
    "gaussian_blur": "Gaussian blur",
    "gaussian_noise": "Gaussian noise",
}
_IN_TABLE_ONLY = ("width : height", "shear")  # what nobody has a feeling for
_LEAST_SHARE = 0.05  # of a teacher's images: primitives below it stand in the table only
_SHOWN_LABELS = 12
_CAPTIONS = {
    "augmentation": "Images, and what each primitive makes of them, with its probability p, for each teacher",
    "selection": "r, q and p over the training",
}


_OBJECTIVES = {"multi_teacher": "transinv"}  # of records that do not say it
_METHODS = {
    "augmix": "It learned to give one answer to an image and to augmented copies of it (AugMix's consistency loss).",
    "ait": "It learned to give one answer to two variants of an image (Augmentation Invariant Training).",
    "multi_ait": "It was trained with other networks, to agree with them on variants of an image (multi-AIT).",
    "mutual": "It was trained with other networks, each learning from the others (deep mutual learning).",
    "distillation": "It learned from labels and from its teachers' answers (distillation).",
    "hard": "It learned from its teacher's answers, also on images made where the two disagree (our reading of HARD).",
    "transinv": "While it learned, an augmentation was learned that is hard for it and harmless to its teachers "
    "(TransInv), so that it stops minding what they do not mind.",
    "teachaugment": "While it learned, an augmentation was learned that is hard for it and readable for its own "
    "average (TeachAugment).",
}
_POLICIES = {
    "randaugment": "RandAugment",
    "autoaugment": "AutoAugment",
    "trivialaugment": "TrivialAugment",
    "augmix": "AugMix",
    "cutout": "Cutout",
    "strong": "shears, translations and Cutout",
    "fixed_aug": "TransInv's deformations at random (FixedAug)",
    "pad_crop": "random crop",
    "grayscale": "random grayscale",
    "color_jitter": "colour jitter",
}

# Who


def main_row(run: Mapping[str, Any]) -> str:
    """The row that the card is about; records of earlier versions have it first."""
    return run.get("main_row") or next(iter(run["rows"]))


def last_part(path: str) -> str:
    """A folder by its last part; of OUT/student: OUT."""
    parts = PurePath(path.replace("\\", "/")).parts
    return parts[-2] if parts[-1] == "student" and len(parts) > 1 else parts[-1]


def short_name(name: str) -> str:
    """A name of which nobody knows whether it is a folder's: by its last part where it looks like one."""
    looks_local = name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name
    return last_part(name) if looks_local else name


def dataset_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the data; earlier records have the name alone, which may or may not be a Hub id."""
    if "dataset" in run:
        return run["dataset"]
    name = str(run["config"]["dataset"])
    return {"name": short_name(name), "kind": "embedded" if name in EMBEDDED_NAMES else None}


def dataset_link(run: Mapping[str, Any]) -> str:
    """The data set as the text names it."""
    found = dataset_of(run)
    if found["kind"] == "hub":
        return hub_link(found["name"], "datasets/")
    return code(found["name"]) + (", the embedded UCI digits" if found["kind"] == "embedded" else "")


def teachers_of(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is known of each teacher, at least its name."""
    return run.get("teachers") or [{"name": short_name(name)} for name in run["config"].get("teachers", [])]


def teacher_link(teacher: Mapping[str, Any]) -> str:
    """A teacher as the text names it."""
    if teacher.get("hub_id"):
        return hub_link(teacher["hub_id"])
    if teacher["name"] == "ema":
        return "the student's own average (EMA)"
    return code(teacher["name"])


def trained_on(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Corruptions of the benchmark that the model saw in training: a teacher's, or the primitives of a probe."""
    fixed = [name.partition(":")[0] for name in run["config"].get("primitives", []) if ":" in name]
    return (*run["config"].get("corruption", ()), *fixed)


def method_names(run: Mapping[str, Any]) -> list[str]:
    """The objectives that made the student, the task first; without plain supervised training."""
    objective = run.get("objective") or _OBJECTIVES.get(run.get("recipe"), "supervised")
    return [name for name in dict.fromkeys((run.get("task", objective), objective)) if name != "supervised"]


def method(run: Mapping[str, Any]) -> str:
    """What the student was trained to do, and on which images."""
    sentences = [_METHODS[name] for name in method_names(run) if name in _METHODS]
    if named := [_POLICIES[name] for name in run.get("policies", []) if name in _POLICIES]:
        sentences.append(f"Its training images were augmented by {words(named)}.")
    if names := [escape(name.replace("_", " ")) for name in trained_on(run)]:
        sentences.append(f"It was trained to be robust to {words(names)}.")
    return " ".join(sentences)


def label_list(names: Sequence[str], num_classes: int) -> str:
    """The classes' names, the first few when there are many."""
    shown = names if len(names) <= _SHOWN_LABELS else names[: _SHOWN_LABELS // 2]
    rest = num_classes - len(shown)
    return ", ".join(map(escape, shown)) + (f" and {rest} more" if rest else "")


# Results


def scores_table(run: Mapping[str, Any]) -> str:
    """A row a model: clean images, the mean of the corruptions, augmented images; no column that no row has."""
    results = {name: row["results"] for name, row in run["rows"].items()}
    of_main = results[main_row(run)]
    measures = [name for name in _MEASURES if name in of_main.get("corruption_errors", {})]
    columns = {
        "top-1": lambda result: _percent(result["clean"].get("top1")),
        "top-5": lambda result: _percent(result["clean"].get("top5")),
        "NLL": lambda result: _fixed(result["clean"].get("nll")),
        "ECE": lambda result: _fixed(result["clean"].get("ece")),
        "top-1, corrupted": lambda result: _percent(result.get("corruption_mean")),
        "ECE, corrupted": lambda result: _fixed(result.get("corruption_ece")),
    }
    columns |= {
        f"top-1, {escape(name.replace('_', ' '))}": lambda result, name=name: _percent(
            result.get("augmented", {}).get(name, {}).get("top1")
        )
        for name in of_main.get("augmented", {})
    }
    columns |= {_MEASURES[name]: lambda result, name=name: _measure(result, name) for name in measures}
    cells = {title: [cell(result) for result in results.values()] for title, cell in columns.items()}
    cells = {title: column for title, column in cells.items() if any(cell != "–" for cell in column)}
    rows = [[escape(name), *column] for name, *column in zip(results, *cells.values(), strict=True)]
    return table(["model", *cells], rows)


def measure_notes(run: Mapping[str, Any]) -> list[str]:
    """How the mean corruption errors are defined, and how far each augmentation moves the student's answers."""
    found = run["rows"][main_row(run)]["results"]
    errors = found.get("corruption_errors", {})
    notes = [f"{_MEASURES[name]} is the {escape(errors[name]['definition'])}." for name in _MEASURES if name in errors]
    if augmented := found.get("augmented"):
        moved = words([f"{row['kl']:.3f} ({escape(name.replace('_', ' '))})" for name, row in augmented.items()])
        notes.append(
            "Augmented images are those of section 4.4 of Augmentation Invariant Training, each made once; the KL "
            f"divergence of the predictions on them from those on the originals is {moved} nats, in the mean."
        )
    return notes


def corruption_table(run: Mapping[str, Any]) -> str:
    """Top-1 by corruption: a column a model, or, of one model alone, a column a severity; empty without corruptions.

    Those that the model of the card was trained on are marked.
    """
    results = {name: row["results"] for name, row in run["rows"].items()}
    result = results[main_row(run)]
    if not result.get("corruptions"):
        return ""
    seen = trained_on(run)
    if len(results) == 1:
        severities = [plain(severity) for severity in result["severities"]]
        columns = severities + (["mean"] if len(severities) > 1 else [])
        cells = {name: [row.get(column) for column in columns] for name, row in result["corruptions"].items()}
        header = ["corruption", *(column if column == "mean" else f"severity {escape(column)}" for column in columns)]
    else:
        header = ["corruption", *map(escape, results)]
        cells = {
            name: [other["corruptions"].get(name, {}).get("mean") for other in results.values()]
            for name in result["corruptions"]
        }
    rows = [
        [escape(name.replace("_", " ")) + (f" {_MARK}" if name in seen else ""), *map(_percent, cells[name])]
        for name in cells
    ]
    columns = zip(*cells.values(), strict=True)
    means = [None if None in column else sum(column) / len(column) for column in columns]
    return table(header, [*rows, ["mean", *map(_percent, means)]])


def mean_of_others(run: Mapping[str, Any]) -> tuple[float, int] | None:
    """Mean top-1 under the corruptions that the model was not trained on, and their number; None if all are alike."""
    found = run["rows"][main_row(run)]["results"].get("corruptions", {})
    others = [row["mean"] for name, row in found.items() if name not in trained_on(run)]
    return (sum(others) / len(others), len(others)) if 0 < len(others) < len(found) else None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _fixed(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _measure(result: Mapping[str, Any], name: str) -> str:
    return _percent(result.get("corruption_errors", {}).get(name, {}).get("percent"))


# Invariances


def teachers_table(run: Mapping[str, Any]) -> str:
    """A row a teacher: what it is, its r and q, and p of each primitive; columns that nobody knows are left out."""
    teachers = teachers_of(run)
    learned = run["rows"][main_row(run)].get("learned", {})
    columns = {
        "architecture": [code(known["architecture"]) if "architecture" in known else "" for known in teachers],
        "classes": [escape(known.get("num_classes", "")) for known in teachers],
    }
    columns |= {name: [f"{value:.2f}" for value in learned[name]] for name in ("r", "q") if name in learned}
    if "p" in learned:
        for index, name in enumerate(run["config"].get("primitives", [])):
            columns[f"p: {_primitive(name)}"] = [f"{p[index]:.2f}" for p in learned["p"]]
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    rows = [[teacher_link(known), *cells] for known, *cells in zip(teachers, *columns.values(), strict=True)]
    return table(["teacher", *columns], rows, 2 if "architecture" in columns else 1)


def let_through(run: Mapping[str, Any]) -> str:
    """A list: for each teacher, which deformations its augmentation gives images, how often and how strong."""
    learned = run["rows"][main_row(run)].get("learned", {})
    if not {"p", "q"} <= learned.keys():
        return ""
    primitives, lines = run["config"].get("primitives", []), []
    magnitudes = run.get("magnitudes") or [{}] * len(learned["p"])
    for known, p, q, of_teacher in zip(teachers_of(run), learned["p"], learned["q"], magnitudes, strict=True):
        shares = sorted(((q * share, name) for share, name in zip(p, primitives, strict=True)), reverse=True)
        told = [(share, name) for share, name in shares if share >= _LEAST_SHARE]
        who, rest = teacher_link(known), f"{100 * (1 - q):.0f} % of its images stayed as they are"
        through = f"let through ({rest}):" if told else f"let next to nothing through: {rest}"
        lines.append(f"- {who[0].upper()}{who[1:]} {through}")
        lines += [
            f"  - {_primitive(name)} in {100 * share:.0f} % of its images{_strength(of_teacher.get(name, []))}"
            for share, name in told
        ]
    return "\n".join(lines)


def magnitudes_table(run: Mapping[str, Any]) -> str:
    """5, 50 and 95 % of every learned parameter; empty when they are not recorded."""
    rows = []
    for known, of_teacher in zip(teachers_of(run), run.get("magnitudes", []), strict=False):
        for name, parameters in of_teacher.items():
            for parameter in parameters:
                unit = f" ({escape(parameter['unit'])})" if parameter["unit"] else ""
                reach = span(parameter["low"], parameter["high"])
                drawn = [number(value) for value in parameter["quantiles"]]
                what = f"{_primitive(name)}: {escape(parameter['name'])}{unit}"
                rows.append([teacher_link(known), what, *drawn, reach, number(parameter["rest"])])
    return table(["teacher", "parameter", "5 %", "50 %", "95 %", "reach", "no effect at"], rows, 2) if rows else ""


def pictures(run: Mapping[str, Any], to_run: str) -> list[str]:
    """The run's figures as Markdown images, relative to the card."""
    found = []
    for path in run.get("figures", []):
        stem = PurePosixPath(path).stem
        caption = escape(_CAPTIONS.get(stem, stem))
        place = PurePosixPath(to_run, "figures", PurePosixPath(path).name)
        found.append(f"![{caption}]({quote(str(place))})\n\n*{caption}.*")
    return found


def _primitive(name: str) -> str:
    corruption, colon, severity = name.partition(":")
    if colon:
        return escape(f"{corruption.replace('_', ' ')} at severity {severity}")
    return _PRIMITIVES.get(name, escape(name))


def _strength(parameters: Sequence[Mapping[str, Any]]) -> str:
    """From the 5 % to the 95 % quantile of each parameter."""
    told = []
    for parameter in parameters:
        if parameter["name"] not in _IN_TABLE_ONLY:
            low, _, high = parameter["quantiles"]
            unit = parameter["unit"] if parameter["unit"] in ("", "°", "×") else f" {escape(parameter['unit'])}"
            told.append(f"{escape(parameter['name'])} {span(low, high)}{unit}")
    return f": {', '.join(told)}" if told else ""


# Training


def training(run: Mapping[str, Any], hardware: str) -> str:
    """How much of what it was trained on, with what, and how long."""
    row, config, dataset = run["rows"][main_row(run)], run["config"], dataset_of(run)
    images = f" of {escape(config['batch_size'])} images" if "batch_size" in config else ""
    whole = [f"{row['steps']:,} steps{images}"] if "steps" in row else []
    if "images_seen" in row:
        of = f", from {dataset['train_rows']:,} training images" if dataset.get("train_rows") else ""
        whole = [f"{' '.join(whole)} ({row['images_seen']:,} in all{of})"]
    if {"optimizer", "learning_rate"} <= config.keys():
        whole.append(f"{escape(config['optimizer'])} with a learning rate of {escape(config['learning_rate'])}")
    if "seed" in config:
        whole.append(f"seed {escape(config['seed'])}")
    sentences = [f"{', '.join(whole)}."] if whole else []
    if config.get("corruption") and "clean_share" in config:
        names = words([escape(name.replace("_", " ")) for name in config["corruption"]])
        severities = escape(steps(config.get("severities", ())))
        share = f"{100 * (1 - config['clean_share']):.0f} %"
        sentences.append(f"{share} of the images were corrupted: {names}, severity {severities}.")
    if config.get("label_noise"):
        share = f"{100 * config['label_noise']:.4g} %"
        sentences.append(f"{share} of the training labels were replaced by labels drawn uniformly from all classes.")
    if row.get("train_seconds"):
        sentences.append(f"It took {duration(row['train_seconds'])}{f' on {hardware}' if hardware else ''}.")
    return " ".join(sentences)
