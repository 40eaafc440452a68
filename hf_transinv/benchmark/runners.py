"""Every method, ready to take its real turns: the library's objectives and Trainer, on images that are on the device.

Each is as `recipes/train.py --method NAME` has it by default, under crop and flip, and TransInv besides as
`recipes/multi_teacher.py` has it. What is particular:

    teachers       networks of the student's architecture with random weights, frozen; TeachAugment's is the average
    peers          one, of the student's architecture
    hard           the phases of both players have `inner_steps` turns each (`hard_most_turns`); in a run its
                   thresholds end them sooner or later
    teachaugment   before the first copy of its augmentation
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from hf_transinv.augment.augmentation_config import AugmentationConfig
from hf_transinv.augment.policies import Policy, PolicyConfig, build_policies
from hf_transinv.benchmark.options import MAX_STEPS, BenchmarkConfig
from hf_transinv.benchmark.synthetic import class_names
from hf_transinv.benchmark.timing import Stopwatch, repeats
from hf_transinv.data.batches import Feed
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.transforms import CropFlip
from hf_transinv.experiment.recommended import RECOMMENDED, as_recommended
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.teacher import Teacher
from hf_transinv.objectives.distillation import DistillationConfig
from hf_transinv.objectives.hard import HardConfig
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Options
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.registry import LEARNED, METHODS, title_of
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.teachaugment import TeachAugmentConfig
from hf_transinv.objectives.transinv import TransInvConfig
from hf_transinv.objectives.turns import Turn
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup

PLAIN = "plain training (crop + flip)"


@dataclass(frozen=True)
class Entry:
    """A run to be measured.

    Attributes:
        title: in the table.
        method: as the registry names it; "supervised" is plain training.
        num_teachers: for methods that have teachers.
        is_recommended: with the settings of `RECOMMENDED`, its n_inner among them; for TransInv.
    """

    title: str
    method: str
    num_teachers: int = 1
    is_recommended: bool = False


def entries(config: BenchmarkConfig) -> list[Entry]:
    """Plain training, and the methods in the order they were asked for; TransInv for each number of teachers."""
    found = [Entry(PLAIN, "supervised")]
    for method in config.methods:
        if method == "transinv":
            found += [
                Entry(f"{title_of(method)}, {count} teacher{'s' * (count > 1)}", method, count)
                for count in config.teacher_counts
            ]
            found.append(Entry(f"{title_of(method)} as recommended", method, is_recommended=True))
        else:
            found.append(Entry(title_of(method), method))
    return found


def build_objective(entry: Entry, config: BenchmarkConfig, device: torch.device) -> Objective:
    """The method with new networks, its teachers on the device.

    Raises:
        InputError: the student cannot be built.
    """
    set_seed(config.seed)
    student, parts = _network(config), BenchmarkParts(entry, config, device)
    if entry.method in METHODS:
        return METHODS[entry.method].build(student, parts)
    task = METHODS[RECOMMENDED["method"]].build(student, parts) if entry.is_recommended else Supervised(student)
    return LEARNED[entry.method].build_over(task, student, parts)


class BenchmarkParts:
    """What the methods are built from here: networks with random weights, default options (`objectives.parts.Parts`).

    Args:
        entry: the run.
        config: of the benchmark.
        device: where it runs.
    """

    label_smoothing = 0.0
    ema_decay = 0.999
    second_policies: Sequence[Policy] | None = None
    ordinary = CropFlip()

    def __init__(self, entry: Entry, config: BenchmarkConfig, device: torch.device) -> None:
        self.entry, self.config, self.device = entry, config, device
        default = METHODS[entry.method].default_policies if entry.method in METHODS else ()
        self.policies = build_policies(default, PolicyConfig())
        self.image_size = (config.image_size, config.image_size)
        self.max_steps, self.steps_per_epoch = MAX_STEPS, float(MAX_STEPS)
        turns = config.inner_steps
        self._options: dict[type, Any] = {
            DistillationConfig: DistillationConfig(
                distill_top_k=min(DistillationConfig.distill_top_k, config.num_classes)
            ),
            HardConfig: HardConfig(hard_most_turns=turns, hard_look_every=turns),
            TransInvConfig: TransInvConfig(inner_steps=turns),
            TeachAugmentConfig: TeachAugmentConfig(teach_inner_steps=turns, teach_replay_epochs=1.0),
        }
        if entry.is_recommended:
            self._options |= {kind: as_recommended(kind) for kind in (TransInvConfig, AugmentationConfig)}

    def options(self, kind: type[Options]) -> Options:
        """The defaults, but for what a benchmark has to choose."""
        return self._options.get(kind) or kind()

    def teachers(self, student: Classifier) -> list[Teacher]:
        """Frozen networks of the student's architecture."""
        return [Teacher(network).to(self.device) for network in self.peers(student)]

    distilled = teachers

    def peers(self, student: Classifier) -> list[Classifier]:
        """Networks of the student's architecture."""
        return [_network(self.config) for _ in range(self.entry.num_teachers)]


def _network(config: BenchmarkConfig) -> Classifier:
    names = class_names(config.num_classes)
    return open_classifier(config.student, num_classes=len(names), label_names=names, pretrained=False)


def build_trainer(
    objective: Objective,
    config: BenchmarkConfig,
    accelerator: Accelerator,
    split: ResidentSplit,
    max_steps: int = MAX_STEPS,
) -> Trainer:
    """The library's Trainer; each network is shown `batch_size` images per turn."""
    batch_size = config.batch_size // objective.variants_a_network
    student = ResidentFeed(split, batch_size, config.seed)
    feeds: dict[str, Feed] = {"student": student, "augmentation": ResidentFeed(split, batch_size, config.seed + 1)}
    # The folder is for records and checkpoints, which single turns do not write.
    setup = TrainerSetup(feeds, CropFlip(), config.train, max_steps, student.batches_per_epoch, Path("."))
    return Trainer(accelerator, objective, setup)


def cycle_of(entry: Entry, config: BenchmarkConfig, objective: Objective) -> int:
    """Turns until their order repeats."""
    return 2 * config.inner_steps if entry.method == "hard" else len(objective.turns)


@dataclass
class Runner:
    """A run that is measured.

    Attributes:
        entry: what runs.
        trainer: takes its turns.
        cycle: turns until their order repeats.
        turns_a_round: whole cycles.
        rounds: who played and how many seconds it took, turn by turn, of each round.
        peak_memory: bytes that each kind of turn needs on a GPU, weights and optimizers of this run included, other
            runs and the data set not; empty on other devices.
    """

    entry: Entry
    trainer: Trainer
    cycle: int
    turns_a_round: int = 0
    rounds: list[list[tuple[Turn, float]]] = field(default_factory=list)
    peak_memory: dict[Turn, int] = field(default_factory=dict)

    @classmethod
    def start(cls, entry: Entry, config: BenchmarkConfig, accelerator: Accelerator, split: ResidentSplit) -> "Runner":
        """Built and warmed up; a round has `inner_steps` turns of the student and lasts `seconds`, at least."""
        device = accelerator.device
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        objective = build_objective(entry, config, device)
        cycle = cycle_of(entry, config, objective)
        runner = cls(entry, build_trainer(objective, config, accelerator, split), cycle)
        runner.take_turns(cycle)
        played = [lap for _ in range(cycle) for lap in runner._take_weighed_turn(before)]
        student_turns, seconds = sum("student" in turn for turn, _ in played), sum(lap for _, lap in played)
        runner.turns_a_round = cycle * max(
            repeats(config.inner_steps, student_turns), repeats(config.seconds, seconds)
        )
        return runner

    @property
    def passes(self) -> dict[Turn, Passes]:
        """What each kind of turn of its rounds costs."""
        return {turn: self.trainer.objective.passes_of(turn) for turn, _ in self.rounds[0]}

    def take_turns(self, count: int) -> list[tuple[Turn, float]]:
        """Who played and how many seconds it took, of so many turns in a row."""
        trainer, played = self.trainer, []
        watch = Stopwatch(trainer.accelerator.device)
        watch.mark()
        for _ in range(count):
            played.append(trainer.objective.next_turn(trainer.turn))
            trainer.take_turn()
            watch.mark()
        return list(zip(played, watch.laps(), strict=True))

    def _take_weighed_turn(self, before: int) -> list[tuple[Turn, float]]:
        """One turn, its peak of memory above `before` noted: not among those that count, since looking takes time."""
        device = self.trainer.accelerator.device
        if device.type != "cuda":
            return self.take_turns(1)
        torch.cuda.reset_peak_memory_stats(device)
        played = self.take_turns(1)
        turn, peak = played[0][0], torch.cuda.max_memory_allocated(device) - before
        self.peak_memory[turn] = max(peak, self.peak_memory.get(turn, 0))
        return played
