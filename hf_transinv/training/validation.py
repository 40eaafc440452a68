"""A run that is measured while it trains: on the validation part, never on the split that it is evaluated on.

Names and meanings are those of `transformers`: `eval_steps`, `load_best_model_at_end`, `metric_for_best_model`,
`early_stopping_patience` (its EarlyStoppingCallback). There is one more measurement, after the last step.

A measurement draws nothing from the generators of the training and changes no weight, so a run that is measured has
the bits of one that is not. What it has found so far, the best student among it, is in every checkpoint.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, cast

from accelerate import Accelerator
from torch import nn

from hf_transinv.config import OutputConfig
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.run_data import Data
from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate
from hf_transinv.evaluation.conditions import chosen_corruptions
from hf_transinv.models.classifier import Classifier

_SEVERITY = 3


class Validation:
    """Measures the first student of a run on the validation part, and keeps the best.

    Args:
        students: those of the objective, before they are placed on devices. The best of each is kept: all as they were
            when the first was best.
        data: has the validation part.
        accelerator: shares the images among its processes, which all find the same figures.
        output: what is measured, and what follows from it.
        every: student steps between two measurements; None: only after the last step.

    Attributes:
        best: the best students, by name, on the CPU; None where they are not kept.
        metric: which of the figures decides.
        figures: of the last measurement: "top1", "corrupted" (both in percent) and "loss" (cross-entropy in nats).
        best_step: when the best student was found; 0: not yet.
        best_value: its figure.
        waited: measurements since then.
        measured_step: when the last measurement was made; 0: none yet.
    """

    def __init__(
        self,
        students: Mapping[str, Classifier],
        data: Data,
        accelerator: Accelerator,
        output: OutputConfig,
        every: int | None,
    ) -> None:
        self.students, self.student = students, next(iter(students.values()))
        self.data, self.accelerator, self.output, self.every = data, accelerator, output, every
        self.corruptions = chosen_corruptions(output.validation_corruptions)
        self.severity = output.validation_severity or _SEVERITY
        self.metric = output.metric_for_best_model or "loss"
        kept = students if output.load_best_model_at_end else {}
        self.best = nn.ModuleDict({name: copy.deepcopy(one).cpu() for name, one in kept.items()}) if kept else None
        # Of a sharded student, every forward pass is one of all processes together; they may have other numbers of
        # batches.
        self._whole = copy.deepcopy(self.student).to(accelerator.device) if accelerator.is_fsdp2 else None
        self.figures = dict.fromkeys(("top1", "loss", *(("corrupted",) if self.corruptions else ())), 0.0)
        self.best_step = self.waited = self.measured_step = 0
        self.best_value = 0.0

    @property
    def chooses(self) -> bool:
        """Whether anything follows from the figures."""
        return self.output.load_best_model_at_end or self.output.early_stopping_patience is not None

    @property
    def is_exhausted(self) -> bool:
        """Whether the student has not become better for so long that the training ends."""
        patience = self.output.early_stopping_patience
        return patience is not None and self.waited >= patience

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds of it as weights."""
        return {} if self.best is None else {"best": self.best}

    def is_due(self, step: int, max_steps: int) -> bool:
        """Whether a measurement follows a step."""
        return step == max_steps or (self.every is not None and step % self.every == 0)

    def measure(self, step: int) -> dict[str, float]:
        """Measure the student as it is after a step; all processes together.

        Returns:
            The figures, as metrics.jsonl names them: "eval/top1", "eval/loss", and "eval/corrupted" where asked for.
        """
        student = self.student
        if self._whole is not None:
            self._whole.load_state_dict(student.state_dict())
            student = self._whole
        found = evaluate(
            student,
            cast(ResidentSplit, self.data.validation),
            accelerator=self.accelerator,
            corruptions=self.corruptions,
            severities=(self.severity,),
            batch_size=self.output.eval_batch_size,
            show_progress=False,
        )
        _forget_answers(student)
        clean, corrupted = found["clean"], found["corruption_mean"]
        figures = {"top1": clean["top1"], "loss": clean["nll"], "corrupted": corrupted}
        self.figures = {name: figures[name] for name in self.figures}
        self.measured_step = step
        self._compare(step, self.figures[self.metric])
        return {f"eval/{name}": value for name, value in self.figures.items()}

    def _compare(self, step: int, value: float) -> None:
        is_better = value < self.best_value if self.metric == "loss" else value > self.best_value
        if not math.isfinite(value) or (self.best_step and not is_better):
            self.waited += 1
            return
        self.best_step, self.best_value, self.waited = step, value, 0
        if self.best is not None:
            for name, best in self.best.items():
                best.load_state_dict(self.students[name].state_dict())

    def load_best(self) -> None:
        """Give the students the weights and buffers of the best ones; there is no training after it."""
        if self.best is not None and self.best_step:
            for name, student in self.students.items():
                student.load_state_dict(self.best[name].state_dict())
                _forget_answers(student)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "best_step": self.best_step,
            "best_value": self.best_value,
            "waited": self.waited,
            "measured_step": self.measured_step,
            "figures": dict(self.figures),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best_step, self.waited = int(state["best_step"]), int(state["waited"])
        self.measured_step, self.best_value = int(state["measured_step"]), float(state["best_value"])
        self.figures = {name: float(state["figures"][name]) for name in self.figures}

    def told(self) -> dict[str, Any]:
        """For the record of the run (`hub.recorded_row`): the last figures, and which student they chose."""
        figures = dict(self.figures) if self.measured_step else {}
        told: dict[str, Any] = {"split": self.data.validation_split, "figures": figures}
        if self.corruptions:
            told |= {"corruptions": list(self.corruptions), "severity": self.severity}
        if self.chooses and self.best_step:
            told |= {"metric": self.metric, "step": self.best_step, "value": self.best_value}
            told |= {"is_loaded": self.best is not None, "patience": self.output.early_stopping_patience}
            told |= {"stopped_early": self.is_exhausted, "is_evaluation": self.data.validation is self.data.evaluation}
        return told


def open_validation(
    students: Mapping[str, Classifier], data: Data, accelerator: Accelerator, output: OutputConfig, per_epoch: float
) -> Validation | None:
    """The measurements of a run; None where it has no validation part, or that is evaluated on at the end alone.

    Args:
        students: see `Validation`.
        data: of the run.
        accelerator: see `Validation`.
        output: the same.
        per_epoch: student steps in a pass over the training split; math.inf where it is not known.

    Raises:
        InputError: measurements are wanted by epochs, and it is not known how long those are.
    """
    every = output.eval_steps
    if output.eval_epochs is not None:
        if per_epoch == math.inf:
            raise InputError("the stream does not say how long it is: give --eval_steps instead of --eval_epochs")
        every = max(1, round(output.eval_epochs * per_epoch))
    is_own = data.validation is not data.evaluation or every is not None or output.validation_corruptions
    if data.validation is None or not is_own:
        return None
    return Validation(students, data, accelerator, output, every)


def _forget_answers(student: nn.Module) -> None:
    """Let a network drop what it computed from its weights in eval mode (LeViT's attention biases, say).

    Those of timm do when they are told to train; the next turn, or evaluation, sets the mode it needs.
    """
    student.train()
