"""What a person sees of a training, on stderr: a bar on a terminal, and everywhere a line for each line of metrics.

    step 200/1950  loss 1.84  top-1 41.2  r elastic .33 light .34 ema .33  q .41
        most used: elastic -> noise .38  light -> contrast .44  ema -> noise .30  1250 img/s  03:20 left

q is the mean over the teachers. The most used primitive of a teacher is the one with the largest p, which is beside
it. The time that is left is what the steps since the start of this training took, for each that is to come. Where
nobody watches the output, there is no bar and no carriage return.
"""

import itertools
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from hf_transinv.augment.learned import AugmentationPanel
from hf_transinv.formats.terminal import hides_bars, say
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.turns import AUGMENTATION

_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
_LONG = 3.0  # seconds that the first step may take without a word
_FIGURES = 69  # characters of a bar beside its label


class Progress:
    """The bar and the lines of one training.

    Args:
        objective: whose teachers and primitives the lines name.
        label: of the bar.
        step: student steps so far.
        max_steps: student steps in all.
        is_shown: whether this process is the one that prints.
        compiles: whether networks are compiled in the first steps.
    """

    def __init__(
        self, objective: Objective, label: str, step: int, max_steps: int, is_shown: bool, compiles: bool = False
    ) -> None:
        self.max_steps, self.is_shown = max_steps, is_shown
        self._began: float | None = time.perf_counter()
        if is_shown:
            begin = f"from step {step} to {max_steps}" if step else f"{max_steps} steps"
            first = "the first steps compile the networks, for minutes" if compiles else "reading the first batch"
            say("training", f"{label}: {begin}; {first}")
        self._start = (time.perf_counter(), step)
        self.teachers = teacher_titles([teacher.name for teacher in objective.teachers])
        self.primitives: Sequence[str] = ()
        panel = objective.players.get(AUGMENTATION)
        if isinstance(panel, AugmentationPanel):
            self.primitives = panel.config.primitives
        self.bar = tqdm(
            total=max_steps,
            initial=step,
            desc=_cut(label, max(10, _columns() - _FIGURES)),
            disable=not is_shown or hides_bars(),
            bar_format=_BAR,
            dynamic_ncols=True,
            mininterval=1.0,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self) -> None:
        """One student step is done."""
        self.bar.update()
        if self._began is not None:
            took, self._began = time.perf_counter() - self._began, None
            if took > _LONG and self.is_shown:
                say("", f"the first step took {took:.1f} s")

    def log(self, step: int, loss: float | None, speed: float, learned: Mapping[str, Any], top1: float | None) -> None:
        """Say where the training is.

        Args:
            step: student steps so far.
            loss: of the student, mean since the last line; None: not known.
            speed: images per second.
            learned: what the objective observes.
            top1: of the last measurement on the validation part, in percent; None: there was none.
        """
        figures = [] if loss is None else [f"loss {loss:.3g}"]
        figures += [] if top1 is None else [f"top-1 {top1:.1f}"]
        q = [f"q {_share(sum(learned['q']) / len(learned['q']))}"] if learned.get("q") else []
        self.bar.set_postfix_str(", ".join((*figures, *q, f"{speed:.0f} img/s")))
        pace = [f"{speed:.0f} img/s", *self._left(step)]
        self._say([f"step {step}/{self.max_steps}", *figures, *self._chosen(learned, q), *pace])

    def measured(self, step: int, figures: Mapping[str, float]) -> None:
        """Say what was measured on the validation part: "top1" and "corrupted" in percent, "loss" in nats."""
        shown = [f"top-1 {figures['top1']:.1f}", f"loss {figures['loss']:.3g}"]
        shown += [f"top-1 under corruption {figures['corrupted']:.1f}"] if "corrupted" in figures else []
        self._say([f"step {step}/{self.max_steps}", "validation:", *shown])

    def _chosen(self, learned: Mapping[str, Any], q: Sequence[str]) -> list[str]:
        """What is learned: r by teacher, q, and the primitive of each teacher with the largest p."""
        shown, p = [], learned.get("p")
        if "r" in learned:
            pairs = zip(self.teachers, learned["r"], strict=True)
            shown.append(" ".join(("r", *(f"{name} {_share(value)}" for name, value in pairs))))
        shown += q
        if p and len(p) == len(self.teachers) and len(p[0]) == len(self.primitives):
            tops = (max(zip(of_teacher, self.primitives, strict=True)) for of_teacher in p)
            used = [f"{name} -> {top} {_share(value)}" for name, (value, top) in zip(self.teachers, tops, strict=True)]
            shown += [f"most used: {used[0]}", *used[1:]]
        return shown

    def _left(self, step: int) -> list[str]:
        """How long the steps to come will take, if as long as those so far."""
        began, first = self._start
        if step == first:
            return []
        left = (time.perf_counter() - began) / (step - first) * (self.max_steps - step)
        return [f"{tqdm.format_interval(left)} left"]

    def _say(self, fields: Sequence[str]) -> None:
        """One line, above the bar where there is one; folded between fields where a terminal is narrower."""
        if not self.is_shown:
            return
        width = None if self.bar.disable else _columns()
        lines = [""]
        for field in fields:
            joined = f"{lines[-1]}  {field}" if lines[-1] else field
            if width is not None and len(joined) > width and lines[-1]:
                lines.append(f"    {field}")
            else:
                lines[-1] = joined
        tqdm.write("\n".join(lines), file=sys.stderr)
        sys.stderr.flush()


def teacher_titles(names: Sequence[str]) -> list[str]:
    """Teachers by the last part of their names, without the words that all but ema begin with ("digits_")."""
    parts = [name.replace("\\", "/").rstrip("/").removesuffix("/student").rpartition("/")[2] for name in names]
    if len(set(parts)) < len(set(names)):
        return list(names)
    words = [re.split("(?<=[_-])", part) for part in dict.fromkeys(parts) if part != "ema"]
    shared = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*words, strict=False)) if words[1:] else ()
    start = sum(len(each[0]) for each in shared)
    return [part if part == "ema" else part[start:] or part for part in parts]


def _share(value: float) -> str:
    """.41 for 0.41: many of them stand in a line."""
    return f"{value:.2f}".removeprefix("0")


def _cut(label: str, longest: int) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def _columns() -> int:
    return shutil.get_terminal_size().columns
