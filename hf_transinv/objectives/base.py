"""What a training method is to the trainer: players that take turns at minimising a loss of their own."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.base import Policy
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import Teacher

AUGMENTATION = "augmentation"
"""The player that is no network of the student's kind: it has an optimizer of its own and no schedule."""


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch, or a micro-batch of it.

    Attributes:
        images: [b, 3, H, W] in [0, 1], on the device, ordinary augmentation done.
        labels: class indices, [b].
        global_batch_size: images in the whole batch, over all processes and micro-batches.
        world_size: number of processes.
        others: further variants of the same images, each cropped and flipped anew.
    """

    images: Tensor
    labels: Tensor
    global_batch_size: int
    world_size: int = 1
    others: tuple[Tensor, ...] = ()

    @property
    def share(self) -> float:
        """Weight of one image's loss: sums over micro-batches, averaged over processes, are then the batch's mean."""
        return self.world_size / self.global_batch_size

    @property
    def variants(self) -> tuple[Tensor, ...]:
        """All variants of the images, each [b, 3, H, W]."""
        return (self.images, *self.others)


@contextmanager
def only_training(player: str, players: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let one player train and freeze the rest: no gradient to their parameters, their BatchNorm statistics held.

    Gradients still flow *through* a frozen player to its input. `requires_grad` and the mode of every module within
    are restored on the way out.
    """
    others = [module for name, module in players.items() if name != player]
    modes = [(module, module.training) for net in players.values() for module in net.modules()]
    trainable = [parameter for module in others for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    for name, module in players.items():
        module.train(name == player)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


class Objective(ABC):
    """One training method; in a loop of your own it is called with images and labels, one turn after another:

        for images, labels in loader:
            player = method.player
            method(images, labels)["total"].backward()
            optimizers[player].step()
            method.step()

    Attributes:
        name: as it stands in tables and on the command line.
        citation: BibTeX of the method, for the model card; empty where there is none.
        players: the networks that train, by name: "student", whose steps are counted; "augmentation", where one is
            learned; other networks under any other name.
        turns: who plays on each batch, in order, repeated for ever: ("student",) or ("augmentation",), ...
        policies: fixed augmentations of the student's images, one after another.
        teachers: frozen networks that judge or are learned from.
        variants: of each image in a batch, each with a crop and flip of its own.
        turn: turns that are over, counted by `step`; the Trainer counts its own.
        variants_a_network: those that one network sees: the batch has so many times fewer images, so that a network
            is shown `batch_size` of them whatever the method.
    """

    name: str
    citation: str
    players: Mapping[str, nn.Module]
    turns: Sequence[tuple[str, ...]]
    policies: Sequence[Policy] = ()
    teachers: Iterable[Teacher] = ()
    variants: int = 1
    variants_a_network: int = 1
    turn: int = 0
    _players: tuple[str, ...] = ()
    _place: int = 0
    _generator: torch.Generator | None = None

    # A loop of your own

    @property
    def player(self) -> str:
        """Whose loss the next call returns; its optimizer makes a step then."""
        if not self._players:  # asked for once a turn: what happens in it may change the answer
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
            labels: class indices, int64 [B].
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
        images, *others = (x.contiguous(memory_format=torch.channels_last) for x in (images, *others))
        batch = Batch(images, labels, len(images), others=tuple(others))
        draws = self.draw(player, tuple(images.shape), self.generator)
        with only_training(player, self.players):
            return self.loss(player, self.players, batch, draws)

    def step(self) -> None:
        """What follows the step of the player's optimizer: averages and multipliers move, gradients are cleared, and
        the turn goes to the next player.
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

    @property
    def students(self) -> Mapping[str, Classifier]:
        """The classifiers that come out of the training, by name; the first is exported, all are evaluated."""
        return {"student": self.players["student"]}

    @property
    def citations(self) -> list[str]:
        """BibTeX of everything that is used, each once."""
        found = [self.citation, *(policy.citation for policy in self.policies)]
        return [citation for citation in dict.fromkeys(found) if citation]

    def next_turn(self, turn: int) -> tuple[str, ...]:
        """Who plays in a turn, counted from 0; some methods look at what happened."""
        return self.turns[turn % len(self.turns)]

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """Draw what is random in a turn, for the whole batch of that shape; sliced by `[rows]` like the batch."""
        return None

    @abstractmethod
    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: Any) -> dict[str, Tensor]:
        """Losses of one player, "total" among them.

        "total" is scaled so that it adds up over micro-batches and averages over processes to the whole batch's loss.

        Args:
            player: whose turn it is.
            nets: the players as they are to be called in this turn (the playing one perhaps wrapped for several
                devices).
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
