"""The parts of `gpu_check`, in the order of their worth: what each runs, and how its figures read."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from hf_transinv.benchmark.augmentation_speed import (
    PolicyRow,
    PrimitiveRow,
    policies_markdown,
    primitives_markdown,
)
from hf_transinv.benchmark.turn_speed import TurnRow
from hf_transinv.commands.gpu_figures import SMALLEST
from hf_transinv.commands.limited_parts import PARTLY, SKIPPED, Found, LimitedParts, Part
from hf_transinv.files import read_json, write_json
from hf_transinv.formats.markdown import code, table
from hf_transinv.formats.typed_json import read_as
from hf_transinv.record import read_metrics

Figures = list[dict[str, Any]]

_BF16 = {"ACCELERATE_MIXED_PRECISION": "bf16"}
_CPU = {"ACCELERATE_USE_CPU": "true"}
_OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.M)
ROWS = ("crop + flip", "TransInv")
"""Of table 2, trained by the part epochs."""


def tests(check: LimitedParts, found: Found) -> None:
    """The project's own tests that need CUDA."""
    root = Path(__file__).parents[2] / "tests"
    if not root.is_dir():
        found.state, found.reason = SKIPPED, "no checkout: the tests do not travel in a wheel"
        return
    files = [path for path in sorted(root.rglob("test_*.py")) if "mark.cuda" in path.read_text(encoding="utf-8")]
    check.figures(found.part).unlink(missing_ok=True)
    check.command(found, "-m", "pytest", "-v", "-m", "cuda", "-p", "no:cacheprovider", *files)
    written = check.log(found.part).read_text(encoding="utf-8", errors="replace")
    for name, outcome in _OUTCOME.findall(written):
        check.note(found, name, outcome=outcome.lower())


def show_tests(figures: Figures) -> list[str]:
    """How many came to what, and those that did not pass by name."""
    outcomes = [line["outcome"] for line in figures]
    said = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes))
    return [f"{said}.", *(f"- {code(line['figure'])}: {line['outcome']}" for line in figures if _is_bad(line))]


def _is_bad(line: dict[str, Any]) -> bool:
    return line["outcome"] not in ("passed", "xfail")


def _section(check: LimitedParts, found: Found, section: str, variables: Mapping[str, str] | None = None) -> None:
    program = ["-m", "hf_transinv.commands.gpu_figures", section, check.figures(found.part)]
    check.command(found, *program, *(["--tiny"] if check.options.tiny else []), variables=variables)


def waits(check: LimitedParts, found: Found) -> None:
    """Which turns wait for the device, and where."""
    _section(check, found, "waits", _BF16)


def show_waits(figures: Figures) -> list[str]:
    """A row for each kind of turn."""
    rows = []
    for line in figures:
        for turn, places in line["turns"].items():
            where = "; ".join(f"{code(place)} ({count})" for place, count in places.items())
            rows.append([line["figure"], turn, "waits" if places else "does not wait", where])
    ended = [f"- {line['figure']}: ended at {code(line['error'])}" for line in figures if line["error"]]
    under = 'A cycle under `set_sync_debug_mode("error")`'
    said = [f"{under} ended early:", "\n".join(ended)] if ended else [f"{under} came to its end for all of them."]
    return [table(["", "turn", "", "where (times in a turn)"], rows, numeric_from=4), *said]


def turns(check: LimitedParts, found: Found) -> None:
    """Turns of every method beside plain training, as they are and compiled."""
    _section(check, found, "turns", _BF16)


def show_turns(figures: Figures) -> list[str]:
    """A table for each student, as it is and compiled."""
    groups: dict[str, Figures] = {}
    for line in figures:
        groups.setdefault(f"{line['student']}{', compiled' * line['compiled']}", []).append(line)
    text = [
        "bf16, channels last. matrix peak: share of a *measured* peak, that of the fastest of a few large bf16 matrix "
        "products on the same device just before, not of a data sheet's."
    ]
    header = ["", "turn", "images/s", "time / plain", "range", "bound", "GFLOPs per image", "matrix peak"]
    for title, lines in groups.items():
        rows: list[list[str]] = []
        for number, line in enumerate(lines):
            for own in line["rows"]:
                row = read_as(TurnRow, own, line["figure"])
                if number and own == line["rows"][0]:  # plain training stands there once
                    continue
                measured = [f"{row.images_per_second:,.0f}", f"{row.ratio.median:.2f}"]
                measured += [f"{row.ratio.low:.2f} to {row.ratio.high:.2f}", f"{row.bound:.2f}"]
                rows.append([row.run, row.turn, *measured, f"{own['flops'] / 1e9:.3g}", f"{own['share']:.1%}"])
        peaks = [line["peak"] / 1e12 for line in lines]
        text += [f"### {title}", f"Measured peak: {min(peaks):.4g} to {max(peaks):.4g} TFLOP/s."]
        text.append(table(header, rows, numeric_from=2))
    return text


def policies(check: LimitedParts, found: Found) -> None:
    """Images per second of fixed policies, corruptions and primitives."""
    _section(check, found, "policies")


def show_policies(figures: Figures) -> list[str]:
    """A table of each kind."""
    of_policies = [read_as(PolicyRow, line, line["figure"]) for line in figures if "policy" in line]
    of_primitives = [read_as(PrimitiveRow, line, line["figure"]) for line in figures if "primitive" in line]
    speeds = [
        [line["corruption"].replace("_", " "), f"{line['images_per_second']:,.0f}"]
        for line in figures
        if "corruption" in line
    ]
    text = [policies_markdown(of_policies)] if of_policies else []
    text += [table(["corruption", "images/s"], speeds)] if speeds else []
    return text + ([primitives_markdown(of_primitives)] if of_primitives else [])


def resume(check: LimitedParts, found: Found) -> None:
    """Six steps at once against three and three: are the weights equal to the bit?"""
    flags = ["--dataset", "digits/target", "--image_size", 32, "--batch_size", 16, "--eval_corruptions", "none"]
    flags += ["--augment", "transinv", "--teachers", "ema", "--student", SMALLEST, "--save_steps", 3]
    flags += ["--save_total_limit", 9, "--max_steps", 6, "--output_dir"]
    check.figures(found.part).unlink(missing_ok=True)
    whole, again, twice = (check.folder / name for name in ("resume_whole", "resume_resumed", "resume_twice"))
    for folder in (whole, again, twice):  # of an earlier check
        shutil.rmtree(folder, ignore_errors=True)
    if not check.transinv(found, "train", *flags, whole):
        return
    saved = Path("checkpoints", "step_00000003")
    shutil.copytree(whole / saved, again / saved)
    shutil.copy(whole / "metrics.jsonl", again)
    write_json(again / "run.json", {**read_json(whole / "run.json"), "rows": {}})
    if not check.transinv(found, "train", *flags, again, "--resume_from", "latest"):
        return
    differs = _note_differences(check, found, "resumed", whole, again)
    if differs and check.transinv(found, "train", *flags, twice):
        if _note_differences(check, found, "undisturbed, twice", whole, twice):
            found.fail("the device itself does not give the same bits twice", PARTLY)
        else:
            found.fail("a resumed run differs, and an undisturbed one is the same twice")


def _note_differences(check: LimitedParts, found: Found, what: str, one: Path, other: Path) -> bool:
    """Note how far apart the weights at the end of two runs are; whether they differ."""
    ends = [folder / "checkpoints" / "step_00000006" for folder in (one, other)]
    farthest = {path.name: largest_difference(path, ends[1] / path.name) for path in sorted(ends[0].glob("*.safete*"))}
    check.note(found, what, difference=farthest)
    return any(farthest.values())


def largest_difference(first: Path, second: Path) -> float:
    """Of any weight in two files; not finite where one is not a number."""
    one, two = load_file(first), load_file(second)
    differences = [(one[name].double() - two[name].double()).abs().max() for name in one if one[name].numel()]
    return torch.stack(differences).max().item() if differences else 0.0


def show_resume(figures: Figures) -> list[str]:
    """A line for each file of weights."""
    lines = []
    for line in figures:
        for name, value in line["difference"].items():
            said = "equal to the bit" if value == 0 else f"differs by up to {value:.2g}"
            lines.append(f"- {line['figure']}, {code(name)}: {said}")
    return ["Six steps against three and three:", "\n".join(lines)]


def losses(check: LimitedParts, found: Found) -> None:
    """A short run of each method on the CPU and on the device, from the same weights."""
    _section(check, found, "losses", _CPU)
    if check.has_gpu:
        _section(check, found, "losses")


def show_losses(figures: Figures) -> list[str]:
    """A row for each loss of each method."""
    devices = list(dict.fromkeys(line["device"] for line in figures))
    means: dict[tuple[str, str], dict[str, float]] = {}
    for line in figures:
        for term, value in line["means"].items():
            if term.endswith("/total"):
                means.setdefault((line["run"], term), {})[line["device"]] = value
    rows = [
        [run, term.removesuffix("/total"), *(f"{of[device]:.4f}" if device in of else "–" for device in devices)]
        for (run, term), of in means.items()
    ]
    text = f"Mean loss of {figures[0]['steps']} steps of {SMALLEST} on the embedded digits, float32."
    if len(devices) > 1:
        text += " Weights, batches and most draws are the same on both; latents and noise are drawn on the device, "
        text += "which has other numbers."
    return [text, table(["", "loss of", *devices], rows, numeric_from=2)]


def epochs(check: LimitedParts, found: Found) -> None:
    """As much of the rows of table 2 as fits; the same command goes on with it."""
    options = check.options
    if not check.has_gpu and not options.tiny:
        found.state, found.reason = SKIPPED, "there is no CUDA device"
        return
    open_rows = [title for title in ROWS if not _is_finished(row_folder(check, title))]
    for number, title in enumerate(open_rows):
        folder = row_folder(check, title)
        more = ["--resume_from", "latest"] if (folder / "run.json").exists() else []
        flags = [*options.comparison(), "--rows", title, "--output_dir", folder, *more]
        precision = _BF16 if check.has_gpu else {}
        share = 1 / (len(open_rows) - number)
        check.transinv(found, "compare", *flags, share=share, variables=precision)
        lines = read_metrics(folder / "metrics.jsonl")
        if lines:
            check.note(found, title, **lines[-1], results=_results(folder))


def row_folder(check: LimitedParts, title: str) -> Path:
    """Where a row trains."""
    return check.folder / "epochs" / re.sub(r"\W+", "_", title)


def _is_finished(folder: Path) -> bool:
    return (folder / "run.json").exists() and read_json(folder / "run.json").get("status") == "finished"


def _results(folder: Path) -> dict[str, Any]:
    """Of the one row in a folder, once it is evaluated."""
    rows = read_json(folder / "run.json").get("rows", {})
    return next(iter(rows.values()))["results"] if rows else {}


def show_epochs(figures: Figures) -> list[str]:
    """A row for each row of the table."""
    rows = []
    for line in figures:
        clean = line["results"].get("clean", {}).get("top1")
        measured = [f"{line['step']:,}", f"{line['epoch']:.2f}", f"{line['images_per_second']:,.0f}"]
        loss = f"{line['student/total']:.3f}" if "student/total" in line else "–"
        rows.append([line["figure"], *measured, loss, "not finished" if clean is None else f"{clean:.1f}"])
    return [table(["row of table 2", "steps", "epochs", "images/s", "loss", "clean top-1"], rows)]


PARTS = {
    "tests": Part(0.25, True, tests, show_tests),
    "waits": Part(0.15, True, waits, show_waits),
    "turns": Part(0.45, False, turns, show_turns),
    "policies": Part(0.25, False, policies, show_policies),
    "resume": Part(0.4, False, resume, show_resume),
    "losses": Part(0.4, False, losses, show_losses),
    "epochs": Part(1.0, False, epochs, show_epochs),
}
"""In the order of their worth."""
