r"""Check a machine with a GPU in ten minutes, offline: tests, waits, speed, resume, losses, and some epochs.

transinv gpu-check --output_dir outputs/gpu_check
    every part, in the order of its worth, each within a limit of its own;
    what fails is noted, and the next one starts
transinv gpu-check --output_dir outputs/gpu_check
    the same command in another ten minutes: parts that are done stay, the
    others go on from what is there
transinv gpu-check --output_dir outputs/gpu_check --parts epochs \
    --local_hub DIR --dataset DATA/cifar100 \
    --teachers MODELS/wrn28_10_cifar10 MODELS/resnet18 ema
    rows of table 2 of TransInv, from and to their checkpoints, on data and
    teachers in folders

It leaves gpu_check.md and gpu_check.json, which are rewritten after each
part, and of each part PART.jsonl (its figures, a line for each as soon as it
is measured) and PART.log. `transinv compare` is what trains the epochs.
"""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_transinv.commands.gpu_parts import PARTS, ROWS
from hf_transinv.commands.limited_parts import DONE, Found, LimitedParts
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.config.checks import choice, did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.files import atomic_write_text, read_json, write_json
from hf_transinv.formats.markdown import escape, fenced, table
from hf_transinv.record import environment
from hf_transinv.resolve.local_hub import VARIABLE


@dataclass
class GPUCheckConfig:
    """What is checked.

    Attributes:
        output_dir: where the two files and everything else go. Of an earlier check there, with the same versions and
            device, the parts that are done stay.
        minutes: for all parts together.
        parts: some of tests, waits, turns, policies, resume, losses and epochs, in this order; default: all.
        run: of the part epochs: a comparison with the rows "crop + flip" and "TransInv", by name or path.
        scale: of that comparison; null: its first.
        num_train_epochs: of both rows, for their whole schedule; default: the comparison's.
        dataset: of both rows, a folder or a Hub id; default: the comparison's.
        teachers: of both rows, folders or names; default: the comparison's.
        local_hub: folder with copies of Hub ids (see HF_TRANSINV_LOCAL_HUB); default: what that variable names.
        tiny: the smallest networks and few turns, to try the command itself; epochs then run without a GPU, too.
    """

    output_dir: str = "outputs/gpu_check"
    minutes: float = 10.0
    parts: tuple[str, ...] = choice((), PARTS, is_closed=False)
    run: str = "compare_transinv_table2"
    scale: str | None = "paper"
    num_train_epochs: float | None = None
    dataset: str | None = None
    teachers: tuple[str, ...] = ()
    local_hub: str | None = None
    tiny: bool = False

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise InputError(
                f"parts {', '.join(unknown)}: expected some of {', '.join(PARTS)}{did_you_mean(unknown[0], PARTS)}"
            )
        if not 0 < self.minutes < float("inf"):
            raise InputError(f"minutes must be positive, given {self.minutes}")
        if self.local_hub and not os.path.isdir(self.local_hub):
            raise InputError(f"local_hub {self.local_hub!r} is not a folder")
        for name in filter(None, (self.dataset, *self.teachers)):
            if name.startswith(("/", ".", "~")) and not os.path.exists(os.path.expanduser(name)):
                raise InputError(f"{name!r} does not exist; give a folder, or a name that local_hub has a copy of")

    @property
    def chosen(self) -> list[str]:
        """The parts, in order."""
        return [name for name in PARTS if not self.parts or name in self.parts]

    def comparison(self) -> list[str]:
        """The flags of `transinv compare` for the part epochs, without rows and folder."""
        flags = ["--config", self.run, "--seeds", "0"]
        for name in ("scale", "num_train_epochs", "dataset"):
            value = getattr(self, name)
            flags += [] if value is None else [f"--{name}", str(value)]
        return flags + (["--teachers", *self.teachers] if self.teachers else [])


def run(config: GPUCheckConfig) -> Iterator[Found]:
    """The parts one after another, as soon as each has ended; the two files are written after each.

    Raises:
        InputError: the comparison of the part epochs cannot be read, lacks one of the rows, or has groups.
    """
    if "epochs" in config.chosen:
        comparison = read_comparison([*config.comparison(), "--rows", *ROWS])
        if len({row.group for row in comparison.rows}) > 1:
            raise InputError(f"run {config.run!r} has groups: expected a comparison whose rows are trained once")
    variables = {VARIABLE: os.path.abspath(config.local_hub)} if config.local_hub else {}
    check = LimitedParts(Path(config.output_dir), config.minutes, config, variables)
    record = {**environment(), "tiny": config.tiny}
    all_found = _earlier(check, record)
    for name in config.chosen:
        if name not in all_found or all_found[name].state != DONE:
            all_found[name] = check.take(name, PARTS[name])
        ordered = [all_found[part] for part in PARTS if part in all_found]
        write_json(check.folder / "gpu_check.json", {**record, "parts": [asdict(one) for one in ordered]})
        atomic_write_text(check.folder / "gpu_check.md", markdown(record, ordered))
        yield all_found[name]


def _earlier(check: LimitedParts, record: dict[str, Any]) -> dict[str, Found]:
    """What an earlier check of the same thing has found; what one of another thing has left is removed."""
    file = check.folder / "gpu_check.json"
    before = read_json(file) if file.exists() else {}
    if {name: before.get(name) for name in record} == record:
        return {one["part"]: Found(**one) for one in before["parts"]}
    for part in PARTS:
        check.figures(part).unlink(missing_ok=True)
    return {}


def markdown(record: dict[str, Any], parts: list[Found]) -> str:
    """Everything that was found, ready to be put into a page of results."""
    versions, hardware = record["versions"], record["hardware"]
    machine = hardware.get("accelerator") or f"no GPU, {hardware['cpu_cores']} cores of {hardware['machine']}"
    tiny = "; tiny networks: no figure here says how fast the machine is" if record["tiny"] else ""
    text = [f"# Check of {machine}", f"torch {versions['torch']}, commit {record['commit'] or 'unknown'}{tiny}"]
    rows = [[one.part, one.state, f"{one.seconds:.0f} s", one.ended, escape(one.reason)] for one in parts]
    text.append(table(["part", "", "time", "ended", "why"], rows, numeric_from=5))
    for one in parts:
        if one.lines or one.log:
            text += [f"## {one.part}", *one.lines]
        if one.log:
            text += ["The last lines of its log:", fenced("\n".join(one.log), "text")]
    return "\n\n".join(text) + "\n"


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    (config,) = parse([GPUCheckConfig], description=description)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the part's processes end with this one
    for found in run(config):
        print(f"{found.part}: {found.state}, {found.seconds:.0f} s {found.reason}", flush=True)
    print(f"gpu_check.md and gpu_check.json are in {config.output_dir}")
