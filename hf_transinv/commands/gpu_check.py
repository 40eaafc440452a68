"""Check a machine with a GPU in ten minutes, offline: tests, waits, speed, resume, losses, and some epochs.

transinv gpu-check --output_dir outputs/gpu_check
    every part, in the order of its worth, each within a limit of its own; what fails is noted, and the next one starts
transinv gpu-check --output_dir outputs/gpu_check --parts epochs --minutes 9 --run cifar100_three_teachers
    go on with the epochs of the last part, from their checkpoint

It leaves gpu_check.md and gpu_check.json, written anew after each part. Data and teachers are read from the folder
that HF_TRANSINV_LOCAL_HUB names.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from hf_transinv.commands.limited_parts import Found, LimitedParts, Part
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.files import atomic_write_text, read_json, write_json
from hf_transinv.formats.markdown import code, table
from hf_transinv.objectives.registry import LEARNED, METHODS
from hf_transinv.record import environment, read_metrics
from hf_transinv.training.checkpointing import checkpoints

_STUDENTS = ("wrn16_2_cifar", "wrn40_2_cifar", "wrn28_10_cifar")
_DIGITS = ("--dataset", "digits/target", "--image_size", "32", "--batch_size", "16", "--eval_corruptions", "none")


@dataclass
class GPUCheckConfig:
    """What is checked.

    Attributes:
        output_dir: where the two files and everything else go.
        minutes: for all parts together.
        parts: some of tests, waits, turns, policies, resume, losses and epochs, in this order; default: all.
        run: configuration of the part epochs, by name or path.
        tiny: the smallest networks and fewest turns, to try the command itself.
    """

    output_dir: str = "outputs/gpu_check"
    minutes: float = 10.0
    parts: tuple[str, ...] = ()
    run: str = "cifar100_three_teachers"
    tiny: bool = False

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise InputError(f"parts {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
        if not 0 < self.minutes < float("inf"):
            raise InputError(f"minutes must be positive, given {self.minutes}")


def tests(check: LimitedParts, found: Found) -> None:
    """The project's own tests of objectives, augmentations and models."""
    root = Path(__file__).parents[2]
    if not (root / "tests" / "objectives").is_dir():
        found.state, found.reason = "skipped", "no checkout: the tests do not travel in a wheel"
        return
    places = ["test_divergences.py"] if check.tiny else ["objectives", "augment", "models"]
    paths = [str(root / "tests" / place) for place in places]
    said = check.command(found, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *paths)
    if said is not None:
        found.lines.append(said.strip().splitlines()[-1])


def waits(check: LimitedParts, found: Found) -> None:
    """What each method's turns launch, copy and wait for."""
    _benchmark(check, found, "launches", *(["--student", "wrn10_1_cifar"] if check.tiny else []))


def turns(check: LimitedParts, found: Found) -> None:
    """Turns of every method beside plain training, as they are and compiled."""
    for student in ("wrn10_1_cifar",) if check.tiny else _STUDENTS:
        for compiled in (False,) if check.tiny else (False, True):
            flags = ["--mixed_precision", "bf16", "--student", student, "--compile", compiled]
            _benchmark(check, found, "turns", *flags, name=f"{student}{', compiled' * compiled}")


def policies(check: LimitedParts, found: Found) -> None:
    """Images per second of primitives, fixed policies and corruptions."""
    _benchmark(check, found, "augmentation")
    _benchmark(check, found, "corruptions", *(["--corruptions", "contrast"] if check.tiny else []))


def _benchmark(check: LimitedParts, found: Found, section: str, *flags: object, name: str = "") -> None:
    output = check.folder / f"{section}.json"
    if check.tiny:
        flags += ("--batch_size", 8, "--rounds", 1, "--seconds", 0.01, "--methods", "transinv", "--teacher_counts", 1)
    said = check.transinv(found, "benchmark", "--sections", section, *flags, "--output", output)
    if said is not None:
        found.lines += [f"### {name or section}", said[said.index("\nbatch ") :].strip().replace("\n## ", "\n#### ")]
        found.numbers[name or section] = json.loads(output.read_text())


def resume(check: LimitedParts, found: Found) -> None:
    """Six steps at once against three and three: are the weights equal to the bit?"""
    flags = [*_DIGITS, "--augment", "transinv", "--teachers", "ema", "--student", "wrn10_1_cifar", "--save_steps", 3]
    flags += ["--save_total_limit", 9, "--max_steps", 6, "--output_dir"]
    whole, again = check.folder / "resume", check.folder / "resumed"
    for folder in (whole, again):  # of an earlier check
        shutil.rmtree(folder, ignore_errors=True)
    if check.transinv(found, "train", *flags, whole) is None:
        return
    saved = Path("checkpoints", "step_00000003")
    shutil.copytree(whole / saved, again / saved)
    shutil.copy(whole / "metrics.jsonl", again)
    write_json(again / "run.json", {**read_json(whole / "run.json"), "rows": {}})
    if check.transinv(found, "train", *flags, again, "--resume_from", "latest") is None:
        return
    ends = [out / "checkpoints" / "step_00000006" for out in (whole, again)]
    names = sorted(path.name for path in ends[0].glob("*.safetensors"))
    farthest = {name: _difference(*(end / name for end in ends)) for name in names}
    found.numbers = farthest
    for name, value in farthest.items():
        found.lines.append(f"- {code(name)}: {'equal' if not value else f'differs by up to {value:.2g}'}")


def _difference(first: Path, second: Path) -> float:
    """The largest difference of any weight."""
    one, two = load_file(first), load_file(second)
    return max((one[name].double() - two[name].double()).abs().max().item() for name in one)


def losses(check: LimitedParts, found: Found) -> None:
    """A short run of each method on the device, its loss beside the CPU's with the same seed."""
    steps, rows = 4 if check.tiny else 20, []
    methods = ["supervised", "transinv"] if check.tiny else [*METHODS, *LEARNED]
    for method in methods:
        flags: list[object] = ["--augment", method] if method in LEARNED else ["--method", method]
        flags += ["--student", "wrn10_1_cifar", "--teachers", "ema", "--distill_top_k", 3, "--inner_steps", 2]
        last = []
        for place in ("cpu", "device") if check.has_gpu else ("cpu",):
            folder = check.folder / "losses" / f"{method}_{place}"
            shutil.rmtree(folder, ignore_errors=True)
            more = ["--max_steps", steps, "--logging_steps", steps, "--output_dir", folder]
            if check.transinv(found, "train", *_DIGITS, *flags, *more, cpu=place == "cpu") is None:
                return
            last.append(read_metrics(folder / "metrics.jsonl")[-1]["student/total"])
        rows.append([method, *(f"{loss:.4f}" for loss in last)])
        found.numbers[method] = last
    header = ["method", "loss on the CPU", *(["on the device"] if check.has_gpu else [])]
    found.lines = [f"Mean loss of {steps} steps:\n", table(header, rows)]


def epochs(check: LimitedParts, found: Found) -> None:
    """As much of a real run as fits; the same command goes on with it."""
    folder = check.folder / "epochs"
    flags = ["train", "--config", check.run, "--output_dir", folder]
    if check.has_gpu:
        flags[1:1] = ["--mixed_precision", "bf16"]
    if checkpoints(folder / "checkpoints"):
        flags += ["--resume_from", "latest"]
    check.transinv(found, *flags)
    lines = read_metrics(folder / "metrics.jsonl")
    if lines:
        last = lines[-1]
        found.numbers = last
        speed, loss = last["images_per_second"], last.get("student/total")
        found.lines = [f"Step {last['step']}, epoch {last['epoch']}, {speed} images/s, loss {loss}"]


PARTS = {
    "tests": Part(0.25, True, tests),
    "waits": Part(0.15, False, waits),
    "turns": Part(0.5, False, turns),
    "policies": Part(0.3, False, policies),
    "resume": Part(0.5, False, resume),
    "losses": Part(0.6, False, losses),
    "epochs": Part(1.0, True, epochs),
}
"""In the order of their worth."""


def run(config: GPUCheckConfig) -> Iterator[Found]:
    """The parts one after another, as soon as each has ended; the two files are written after each."""
    check = LimitedParts(Path(config.output_dir), config.minutes, config.run, config.tiny)
    all_found: list[Found] = []
    record = environment()
    for name, part in PARTS.items():
        if config.parts and name not in config.parts:
            continue
        found = check.take(name, part)
        all_found.append(found)
        write_json(check.folder / "gpu_check.json", {**record, "parts": [asdict(one) for one in all_found]})
        atomic_write_text(check.folder / "gpu_check.md", markdown(record, all_found))
        yield found


def markdown(record: dict[str, Any], parts: list[Found]) -> str:
    """Everything that was found, ready to be put into a page of results."""
    versions, hardware = record["versions"], record["hardware"]
    machine = hardware.get("accelerator", f"no GPU, {hardware['cpu_cores']} cores of {hardware['machine']}")
    text = [f"# Check of {machine}", f"torch {versions['torch']}, commit {record['commit'] or 'unknown'}"]
    rows = [[one.part, one.state, f"{one.seconds:.0f} s", one.reason] for one in parts]
    text.append(table(["part", "", "time", "why"], rows))
    for one in parts:
        if one.lines:
            text += [f"## {one.part}", "\n".join(one.lines)]
    return "\n\n".join(text) + "\n"


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    (config,) = parse([GPUCheckConfig], description=description)
    for found in run(config):
        print(f"{found.part}: {found.state}, {found.seconds:.0f} s {found.reason}", flush=True)
    print(f"gpu_check.md and gpu_check.json are in {config.output_dir}")
