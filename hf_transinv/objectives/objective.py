"""What a training method is to the trainer: players that take turns at minimising a loss of their own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.saving import save_weights
from hf_transinv.config import MixingConfig, TrainConfig
from hf_transinv.errors import InputError
from hf_transinv.figures import plot_examples
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.sample import Sample
from hf_transinv.objectives.turns import AUGMENTATION, Batch, Turn, only_training

_SHOWN_DRAWS = 6


class Objective(ABC):
    """One training method.

    In a loop of your own it is called with images and labels, one turn after another:

        for images, labels in loader:
            player = method.player
            method(images, labels)["total"].backward()
            optimizers[player].step()
            method.step()

    A method that is chosen by name (`objectives.registry`) also states `title`, `summary`, `passes` and `build`.

    Attributes:
        name: on the command line and in records.
        title: in tables.
        summary: the sentence that model cards have.
        passes: what each kind of turn costs at least.
        configs: dataclasses of its options, on the command line and in YAML.
        own_options: fields of `MethodConfig` that are for such methods alone.
        default_policies: names of the fixed augmentations where none is named.
        citation: BibTeX of the method, for the model card; empty where there is none.
        keeps_start: whether a penalty keeps the student near the weights it starts from, in place of weight decay.
        players: the networks that train, by name: "student", whose steps are counted, "augmentation", and any others.
        turns: who plays on each batch, in order, repeated for ever: ("student",) or ("augmentation",), ...
        policies: fixed augmentations of the student's images, one after another.
        teachers: frozen networks that judge or are learned from.
        average: of the student's weights, where the run measures and exports it (`training.averaging`).
        interpolated_from: the student as it starts, where the run needs it at its end (`training.interpolation`).
        variants: of each image in a batch, each with a crop and flip of its own.
        turn: turns that are over, counted by `step`; the Trainer counts its own.
        variants_a_network: those that one network sees: the batch has so many times fewer images, for an equal number.
        views: versions of an image of a batch that the student answers to in its turn, in the mean.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    passes: ClassVar[Mapping[Turn, Passes]]
    configs: ClassVar[tuple[type, ...]] = ()
    own_options: ClassVar[tuple[str, ...]] = ()
    default_policies: ClassVar[tuple[str, ...]] = ()
    citation: ClassVar[str] = ""
    keeps_start: bool = False
    players: Mapping[str, nn.Module]
    turns: Sequence[Turn]
    policies: Sequence[Policy] = ()
    teachers: Sequence[Teacher] = ()
    average: EMATeacher | None = None
    interpolated_from: Teacher | None = None
    variants: int = 1
    variants_a_network: int = 1
    views: Fraction | int = 1
    turn: int = 0
    _players: tuple[str, ...] = ()
    _place: int = 0
    _generator: torch.Generator | None = None

    # A loop of your own

    @property
    def player(self) -> str:
        """Whose loss the next call returns; its optimizer makes a step then."""
        if not self._players:  # asked for once per turn: what happens in it may change the answer
            self._players = self.next_turn(self.turn)
        return self._players[self._place]

    @property
    def generator(self) -> torch.Generator:
        """What `__call__` draws from, on the CPU; seeded with 0 unless `generator.manual_seed` says otherwise."""
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(0)
        return self._generator

    def __call__(self, images: Tensor, labels: Tensor, *others: Tensor) -> dict[str, Tensor]:
        """The losses of the player whose turn it is; call backward on "total", step its optimizer, then `step`.

        All other players hold still: no gradient reaches their parameters, and their BatchNorm statistics stay.

        Args:
            images: [B, 3, H, W], float in [0, 1], on the players' device.
            labels: class indices, int64 [B], or where images are mixed the share of each class, float [B, C].
            others: further variants of the same images, for a method that compares `variants` of them.

        Returns:
            Scalars by name, "total" among them.

        Raises:
            InputError: another number of variants than the method compares, or images that are not float.
        """
        if len(others) + 1 != self.variants:
            raise InputError(
                f"{self.name} compares {self.variants} variants of each image, given {len(others) + 1}: call it with "
                "images, labels and the further variants, each augmented anew"
            )
        player = self.player
        # As the crops of the Trainer leave them: kernels sum in another order in another layout.
        variants = [x.contiguous(memory_format=torch.channels_last) for x in (images, *others)]
        batch = Batch(variants[0], labels, len(images), others=tuple(variants[1:]))
        draws = self.draw(player, tuple(images.shape), self.generator)
        with only_training(player, self.players):
            return self.loss(player, self.players, batch, draws)

    def step(self) -> None:
        """Follow the step of the player's optimizer.

        Averages and multipliers move, gradients are cleared, and the turn goes to the next player.
        """
        player = self.player
        self.after_step(player, self.players)
        self.players[player].zero_grad(set_to_none=True)
        self._place += 1
        if self._place == len(self._players):
            self.turn, self._place, self._players = self.turn + 1, 0, ()

    def to(self, device: torch.device | str) -> "Objective":
        """Move everything that is called in a turn: players, averages and teachers."""
        for module in (*self.players.values(), *self.extra_state().values(), *self.teachers):
            module.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Everything that a loop goes on from, besides its optimizers and its place in the data."""
        modules = {**self.players, **self.extra_state()}
        return {
            "turn": self.turn,
            "players": self._players,
            "place": self._place,
            "generator": self.generator.get_state(),
            "modules": {name: module.state_dict() for name, module in modules.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a `state_dict` was taken; exact to the bit."""
        for name, module in {**self.players, **self.extra_state()}.items():
            module.load_state_dict(state["modules"][name])
        self.generator.set_state(state["generator"])
        self.turn, self._players, self._place = state["turn"], state["players"], state["place"]

    # What a method is

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "Objective":
        """The method with this student.

        Raises:
            InputError: a teacher or an option does not fit.
        """
        raise TypeError(f"{cls.__name__} is not chosen by name")

    @classmethod
    def check_augment(cls, augment: Sequence[str], learned: str | None) -> None:
        """Refuse augmentations that the method does not compose with.

        Args:
            augment: all that were asked for, by name.
            learned: the one among them that is learned.

        Raises:
            InputError: with the reason.
        """
        return  # most methods compose with all

    @classmethod
    def check_mixing(cls, mixing: MixingConfig, options: Mapping[type, Any]) -> None:
        """Raises InputError for regularisers that the method, with these options by their classes, does not take."""
        return

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The players of the student's kind: trained by the configured optimizer and schedule, compiled, sharded."""
        return {name: player for name, player in self.players.items() if name != AUGMENTATION}

    @property
    def task_name(self) -> str:
        """The method by which the student learns, whatever augmentation lies over it."""
        return self.name

    def parameter_groups(self, player: str, config: TrainConfig) -> list[dict[str, Any]]:
        """What AdamW is given of a player that is none of the `networks`."""
        return [
            {
                "params": list(self.players[player].parameters()),
                "lr": config.augment_learning_rate,
                "weight_decay": config.augment_weight_decay,
            }
        ]

    def export_learned(self, sample: Sample) -> dict[str, Any]:
        """Write what was learned beside the networks into the run's folder.

        Returns:
            Entries for its run.json.
        """
        learned = self.players.get(AUGMENTATION)
        if learned is not None:
            save_weights(learned, sample.folder / "augmentation")
            generator = torch.Generator().manual_seed(sample.seed)
            shown = self.preview(sample.images, sample.labels, generator, _SHOWN_DRAWS).cpu()
            plot_examples(sample.images.cpu(), shown, sample.folder / "figures" / "augmentation.png")
        return {}

    def preview(self, images: Tensor, labels: Tensor, generator: torch.Generator, count: int) -> Tensor:
        """What a learned augmentation makes of images [N, 3, H, W]: [count, N, 3, H, W], each drawn anew."""
        raise TypeError(f"{self.name} learns no augmentation")

    @property
    def students(self) -> Mapping[str, Classifier]:
        """The classifiers that come out of the training, by name; the first is exported, all are evaluated."""
        return {"student": cast(Classifier, self.players["student"])}

    @property
    def citations(self) -> list[str]:
        """BibTeX of everything that is used, each once."""
        found = [self.citation, *(policy.citation for policy in self.policies)]
        return [citation for citation in dict.fromkeys(found) if citation]

    @property
    def kin(self) -> dict[str, str]:
        """Corruptions of the benchmark that its augmentations imitate, each with a reason (see `augment.kin`)."""
        learned = getattr(self.players.get(AUGMENTATION), "kin", {})
        return {name: why for policy in self.policies for name, why in policy.kin.items()} | dict(learned)

    def next_turn(self, turn: int) -> tuple[str, ...]:
        """Who plays in a turn, counted from 0; some methods look at what happened."""
        return self.turns[turn % len(self.turns)]

    def passes_of(self, turn: Turn) -> Passes:
        """What a turn costs as the method is configured, for each of the student's images, as `passes`."""
        return self.passes[turn]

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """Draw what is random in a turn, for the whole batch of that shape; sliced by `[rows]` like the batch."""
        return None

    def told(self, draws: Any, kinds: Tensor) -> Any:
        """The draws of a turn, for a method that looks at how a learned augmentation deforms the batch.

        Args:
            draws: as `draw` made them.
            kinds: number of the deformation that each image gets, -1 for none, int64 [B] on the CPU.
        """
        return draws

    @abstractmethod
    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: Any) -> dict[str, Tensor]:
        """Losses of one player, "total" among them.

        "total" is scaled so that it adds up over micro-batches and averages over processes to the whole batch's loss.

        Args:
            player: whose turn it is.
            nets: the players as they are called in this turn, the playing one perhaps wrapped for several devices.
            batch: this process's images.
            draws: the part of `draw`'s answer that belongs to them.
        """

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:  # noqa: B027 (most methods do nothing)
        """Called when the optimizer of a player has made a step, gradients still there; the nets are unwrapped."""

    def extra_state(self) -> dict[str, nn.Module]:
        """Modules that move without an optimizer (an EMA): saved and restored with the players."""
        return {}

    def observe(self) -> dict[str, Any]:
        """What is learned, as plain numbers, for the log."""
        return {}

    def warnings(self, recent: Mapping[str, float]) -> dict[str, str]:
        """What is going wrong: short keys and a sentence each, judged by recent means of the terms (player/term)."""
        return {}
