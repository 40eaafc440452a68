"""HARD in our reading: losses against slow references, who plays, who moved, parts of a batch, stop and resume."""

import json
import math

import pytest
import torch
from accelerate import Accelerator

from hf_transinv.augment.hard_augmenters import AugmenterConfig, build_augmenter
from hf_transinv.config import TrainConfig
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.models.conv_vae import ConvVAE, VAEConfig, save_vae
from hf_transinv.models.labels import class_columns
from hf_transinv.objectives.hard import Hard, HardConfig
from hf_transinv.objectives.switching import TurnSwitch
from hf_transinv.objectives.turns import Batch, only_training
from hf_transinv.record import read_metrics
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.launching import TWO_PROCESSES, succeed
from tests.objectives.tiny import classifier, pixels, seeded, teacher
from tests.oracles import hard as oracle
from tests.tiny_run import random_split, resident_feed, tensors_of, tiny_vit

CLASSES = 5
SIZE = 8


def augmenter(kind="affine", **fields):
    torch.manual_seed(7)
    options = {"hard_init_scale": 0.6, "hard_latent_dim": 4, "hard_hidden_dim": 6} | fields
    return build_augmenter(AugmenterConfig(hard_augmenter=kind, **options), (SIZE, SIZE))


def build(columns=None, teacher_classes=CLASSES, kind="affine", **config):
    net = teacher(teacher_classes, SIZE, seed=1)
    return Hard(classifier(CLASSES, SIZE), augmenter(kind), net, HardConfig(**config), columns)


def batch_of(size, part=slice(None), scale=1):
    labels = torch.randint(CLASSES, (size,), generator=seeded(1))
    return Batch(pixels(size, SIZE)[part], labels[part], size, scale)


def losses_of(objective, player, batch, draws):
    with only_training(player, objective.players):
        return objective.loss(player, objective.players, batch, draws)


@torch.no_grad()
def answers(objective, batch, z, columns=None):
    """Logits as lists: student and teacher on clean and on augmented images."""
    student, own = objective.players["student"].eval(), objective.teacher
    moved = objective.players["augmentation"](batch.images, z)
    of_teacher = [own(images) for images in (batch.images, moved)]
    if columns is not None:
        of_teacher = [torch.stack([logits[:, c] for c in columns], dim=1) for logits in of_teacher]
    found = (student(batch.images), student(moved), *of_teacher)
    return [logits.double().tolist() for logits in found]


class TestOracle:
    @pytest.mark.parametrize("kind", ["affine", "thin_plate"])
    @pytest.mark.parametrize(("temperature", "ce_weight"), [(1.0, 0.0), (3.0, 0.5)])
    def test_student(self, kind, temperature, ce_weight):
        objective = build(kind=kind, hard_temperature=temperature, hard_ce_weight=ce_weight)
        batch = batch_of(6)
        z = objective.draw("student", batch.images.shape, seeded(2))
        losses = losses_of(objective, "student", batch, z)
        clean, moved, t_clean, t_moved = answers(objective, batch, z)
        expected = oracle.student_loss(clean, moved, t_clean, t_moved, batch.labels.tolist(), temperature, ce_weight)
        assert losses["total"].item() == pytest.approx(expected, rel=1e-4)
        pairs = zip(moved, t_moved, strict=True)
        disagreement = sum(oracle.divergence(s, t, temperature) for s, t in pairs) / 6
        assert losses["disagreement"].item() == pytest.approx(disagreement, rel=1e-4)
        assert ("ce" in losses) == (ce_weight > 0)

    @pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0)])
    def test_augmenter(self, weights):
        temperature = 2.0
        objective = build(hard_temperature=temperature, hard_student_weight=weights[0], hard_teacher_weight=weights[1])
        batch = batch_of(6)
        z = objective.draw("augmentation", batch.images.shape, seeded(2))
        losses = losses_of(objective, "augmentation", batch, z)
        clean, moved, t_clean, t_moved = answers(objective, batch, z)
        expected = oracle.augmenter_objective(clean, moved, t_clean, t_moved, temperature, *weights)
        assert losses["total"].item() == pytest.approx(-expected, rel=1e-4)
        pairs = zip(moved, t_moved, strict=True)
        disagreement = sum(oracle.divergence(s, t, temperature) for s, t in pairs) / 6
        assert losses["disagreement"].item() == pytest.approx(disagreement, rel=1e-4)
        assert losses["total"].item() == pytest.approx(
            weights[1] * losses["keep"].item() - weights[0] * losses["hard"].item(), rel=1e-5
        )

    def test_the_teachers_classes_by_name(self):
        """A teacher of 7 classes, the student's 5 among them in another order; what the others say is left out."""
        known, wanted = ["g", "a", "x", "c", "e", "y", "b"], ["a", "b", "c", "e", "g"]
        columns = class_columns(known, 7, wanted, match_labels=True)
        assert columns.tolist() == [1, 6, 3, 4, 0]
        objective = build(columns, teacher_classes=7)
        batch = batch_of(4)
        z = objective.draw("student", batch.images.shape, seeded(2))
        losses = losses_of(objective, "student", batch, z)
        told = answers(objective, batch, z, columns.tolist())
        expected = oracle.student_loss(*told, batch.labels.tolist(), 1.0, 0.0)
        assert losses["total"].item() == pytest.approx(expected, rel=1e-4)

    def test_other_classes_are_refused(self):
        with pytest.raises(InputError, match="5 and 7 classes"):
            build(teacher_classes=7)
        with pytest.raises(InputError, match="5 and 3 classes"):
            build(torch.tensor([0, 1, 2]))

    def test_gradient_climbs_the_augmenters_objective(self):
        """A step against the gradient of the total raises what phi is to ascend."""
        objective = build()
        batch = batch_of(6)
        z = objective.draw("augmentation", batch.images.shape, seeded(2))
        before = oracle.augmenter_objective(*answers(objective, batch, z), 1.0, 1.0, 1.0)
        losses_of(objective, "augmentation", batch, z)["total"].backward()
        with torch.no_grad():
            for parameter in objective.players["augmentation"].parameters():
                parameter -= 0.05 * parameter.grad
        assert oracle.augmenter_objective(*answers(objective, batch, z), 1.0, 1.0, 1.0) > before


class TestPartsOfABatch:
    @pytest.mark.parametrize("player", ["student", "augmentation"])
    def test_micro_batches_and_processes(self, player):
        """Losses and gradients of 2 + 4 images are those of 6; of two processes, averaged, too."""
        objective = build(hard_ce_weight=0.3)
        z = objective.draw(player, (6, 3, SIZE, SIZE), seeded(2))

        def play(parts, scale):
            objective.players[player].zero_grad()
            found = [losses_of(objective, player, batch_of(6, rows, scale), z[rows]) for rows in parts]
            sum(losses["total"] for losses in found).backward()
            gradients = [p.grad.clone() / scale for p in objective.players[player].parameters()]
            return {name: sum(losses[name].item() for losses in found) / scale for name in found[0]}, gradients

        whole, expected = play([slice(0, 6)], 1)
        for parts, scale in (([slice(0, 2), slice(2, 6)], 1), ([slice(0, 3), slice(3, 6)], 2)):
            values, gradients = play(parts, scale)
            assert values == pytest.approx(whole, rel=1e-4, abs=1e-6)
            for one, other in zip(gradients, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)

    def test_the_switch_sees_the_whole_batch(self):
        """What micro-batches add up to, each process's part without the factor that undoes averaging."""
        objective = build(hard_look_every=2)
        z = objective.draw("student", (6, 3, SIZE, SIZE), seeded(2))
        whole = losses_of(objective, "student", batch_of(6), z)["disagreement"].item()
        for scale in (1, 2):
            objective.switch.total.zero_()
            for rows in (slice(0, 2), slice(2, 6)):
                losses_of(objective, "student", batch_of(6, rows, scale), z[rows])
            objective.after_step("student", objective.players)
            if scale == 1:
                assert objective.switch.total.item() == pytest.approx(whole, rel=1e-4)
        assert objective.switch.last == pytest.approx(whole / 2, rel=1e-4)  # the second sum alone, over two turns


def play(switch, disagreement, dtype=torch.float32):
    """A turn of one micro-batch."""
    switch.add(torch.tensor(disagreement, dtype=dtype))
    switch.end_turn()


class TestSwitch:
    def test_by_hand(self):
        """Lower 1, upper 3, looks every 2 turns, 6 turns at most."""
        switch = TurnSwitch(1.0, 3.0, 6, 2)
        assert switch.player == "student" and math.isnan(switch.last)
        told = [
            (5.0, "student"),  # no look yet
            (0.0, "student"),  # mean 2.5: not below 1
            (0.9, "student"),
            (0.9, "augmentation"),  # mean 0.9
            (9.0, "augmentation"),
            (0.0, "student"),  # mean 4.5: above 3
            *[(2.0, "student")] * 5,
            (2.0, "augmentation"),  # never below 1, and 6 turns are over
            *[(2.0, "augmentation")] * 5,  # between the thresholds nothing happens
            (2.0, "student"),
        ]
        for value, player in told:
            play(switch, value)
            assert switch.player == player
        assert (switch.switches, switch.capped, switch.last) == (4, 2, 2.0)

    @pytest.mark.parametrize(("most_turns", "look_every"), [(1, 1), (4, 1), (7, 3), (10, 5), (5, 5)])
    def test_against_the_slow_one(self, most_turns, look_every):
        values = (4 * torch.rand(200, generator=seeded(3))).tolist()
        switch, seen = TurnSwitch(1.2, 2.6, most_turns, look_every), ["student"]
        for value in values:
            play(switch, value, torch.float64)
            seen.append(switch.player)
        assert seen == oracle.who_plays(values, 1.2, 2.6, most_turns, look_every)
        assert {"student", "augmentation"} == set(seen)

    def test_a_disagreement_that_is_no_number_cannot_hold_it_up(self):
        switch = TurnSwitch(1.0, 3.0, 4, 2)
        for _ in range(4):
            play(switch, math.nan)
        assert switch.player == "augmentation"

    @pytest.mark.parametrize("after", range(0, 14, 3))
    def test_saved_and_restored_anywhere(self, after):
        values = (4 * torch.rand(30, generator=seeded(4))).tolist()
        switch = TurnSwitch(1.2, 2.6, 5, 3)
        for value in values[:after]:
            play(switch, value)
        restored = TurnSwitch(1.2, 2.6, 5, 3)
        restored.load_state_dict({name: value.clone() for name, value in switch.state_dict().items()})
        for value in values[after:]:
            assert restored.player == switch.player
            play(switch, value)
            play(restored, value)
        assert (restored.switches, restored.capped, restored.last) == (switch.switches, switch.capped, switch.last)

    def test_the_host_looks_only_when_it_decides(self, monkeypatch):
        """Reading a number of a device waits for it: once in `look_every` turns."""
        read, item = [], torch.Tensor.item
        monkeypatch.setattr(torch.Tensor, "item", lambda tensor: read.append(1) or item(tensor))
        switch = TurnSwitch(1.0, 3.0, 100, 5)
        for _ in range(20):
            play(switch, 2.0)
        assert len(read) == 4

    def test_the_sum_is_copied_before_the_backward_pass(self):
        """What comes later in the queue of the device is not waited for."""
        switch = TurnSwitch(1.0, 3.0, 100, 1)
        switch.add(torch.tensor(2.0))
        switch.total.fill_(99.0)
        switch.end_turn()
        assert switch.last == 2.0 and switch.total == 0


TWO_OF_A_KIND = """
import json, sys
from pathlib import Path
import torch
from hf_transinv.objectives.switching import TurnSwitch

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
switch, seen = TurnSwitch(1.2, 2.6, 7, 3), ["student"]
for parts in json.loads(sys.argv[1]):
    switch.add(torch.tensor(parts[rank]))
    switch.end_turn()
    seen.append(switch.player)
said = {"seen": seen, "state": switch.get_extra_state().tolist(), "total": switch.total.item()}
Path(f"rank{rank}.json").write_text(json.dumps(said))
torch.distributed.destroy_process_group()
"""


def test_two_processes_decide_alike_and_as_one(tmp_path):
    """Each knows its part of the batch alone; turns and state are the same to the bit, and those of the sums."""
    parts = (2 * torch.rand(100, 2, generator=seeded(5))).tolist()
    (tmp_path / "main.py").write_text(TWO_OF_A_KIND)
    succeed(TWO_PROCESSES, tmp_path / "main.py", json.dumps(parts), cwd=tmp_path)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["seen"] == oracle.who_plays([sum(pair) for pair in parts], 1.2, 2.6, 7, 3)


class TestWhoMoved:
    @pytest.mark.parametrize("player", ["student", "augmentation"])
    def test_only_the_player(self, player):
        objective = build()
        watched = {**objective.players, "teacher": objective.teacher}
        before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in watched.items()}
        optimizer = torch.optim.SGD(objective.players[player].parameters(), lr=0.1, weight_decay=0.01)
        batch = batch_of(6)
        losses_of(objective, player, batch, objective.draw(player, batch.images.shape, seeded(2)))["total"].backward()
        optimizer.step()
        for name, net in watched.items():
            moved = {key for key, value in net.state_dict().items() if not torch.equal(value, before[name][key])}
            assert (moved == {key for key, _ in net.named_parameters()}) if name == player else not moved
        others = [p for name, net in watched.items() if name != player for p in net.parameters()]
        assert all(p.grad is None for p in others)


def tiny_trainer(folder, steps=12, augment=None, **train):
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"max_steps": steps, "batch_size": 8, "learning_rate": 0.05, "logging_steps": 2, "save_steps": 3}
    config = TrainConfig(**fields | {"save_total_limit": 9} | train)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(config.seed)
    student, own = tiny_vit(dropout=0.1), teacher(3, 32, seed=1)
    learned = build_augmenter(AugmenterConfig(hard_init_scale=0.5, **(augment or {})), (32, 32))
    method = HardConfig(hard_lower=0.01, hard_upper=0.02, hard_most_turns=4, hard_look_every=2)
    objective = Hard(student, learned, own, method)
    feeds = {
        player: resident_feed(config.batch_size, number, accelerator)
        for number, player in enumerate(("student", "augmentation"))
    }
    ordinary = CropFlip()
    return Trainer(
        accelerator, objective, TrainerSetup(feeds, ordinary, config, config.max_steps, 5.0, folder, "hard")
    )


class TestTraining:
    def test_resumed_anywhere_equals_uninterrupted_to_the_bit(self, tmp_path):
        whole = tiny_trainer(tmp_path / "whole")
        whole.train()
        end = tensors_of(whole)
        assert whole.objective.switch.switches > 3 and whole.turn > whole.step
        assert len(random_split()) == 40
        for step in (9, 6, 3):  # resuming removes what comes after
            resumed = tiny_trainer(tmp_path / f"from_{step}")
            torch.manual_seed(99)
            resumed.resume(tmp_path / "whole" / "checkpoints" / f"step_{step:08d}")
            resumed.train()
            assert resumed.turn == whole.turn
            for name, tensor in tensors_of(resumed).items():
                assert torch.equal(tensor, end[name]), (step, name)

    @pytest.mark.parametrize("kind", ["affine", "thin_plate", "vae"])
    def test_every_augmenter_trains_and_tells(self, tmp_path, kind):
        augment = {"hard_augmenter": kind}
        if kind == "vae":
            sizes = VAEConfig(vae_latent_channels=2, vae_width=4)
            augment["hard_vae"] = str(save_vae(ConvVAE(sizes), tmp_path / "vae"))
        trainer = tiny_trainer(tmp_path / "run", steps=6, augment=augment)
        start = tensors_of(trainer)
        trainer.train()
        end = tensors_of(trainer)
        for player in ("student", "augmentation"):
            moved = {name for name in start if name.startswith(player) and not torch.equal(start[name], end[name])}
            assert moved >= {f"{player}.{name}" for name, _ in trainer.objective.players[player].named_parameters()}
        seen = trainer.objective.observe()
        assert seen["switches"] >= seen["capped_switches"] and math.isfinite(seen["disagreement"])
        line = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
        assert {"student/clean", "student/disagreement", "augmentation/keep", "augmentation/change"} <= line.keys()


class TestWarnings:
    def test_nothing_to_say(self):
        assert build().warnings({"augmentation/keep": 0.1, "augmentation/hard": 0.5}) == {}
        assert build().warnings({}) == {}

    def test_each(self):
        objective = build()
        assert "hard_teacher_weight" in objective.warnings({"augmentation/keep": 1.0})["destroyed"]
        assert "plain distillation" in objective.warnings({"augmentation/hard": 1e-5})["idle"]
        objective.switch.switches = objective.switch.capped = 10
        assert "10 of 10 phases" in objective.warnings({})["thresholds"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hard_lower": 0.5}, "0 <= hard_lower < hard_upper"),
        ({"hard_temperature": 0.0}, "hard_temperature must be positive"),
        ({"hard_teacher_weight": -1.0}, "hard_teacher_weight must be at least 0"),
        ({"hard_ce_weight": math.inf}, "finite"),
        ({"hard_look_every": 0}, "1 <= hard_look_every"),
        ({"hard_look_every": 60}, "hard_look_every <= hard_most_turns"),
    ],
)
def test_impossible_values_are_refused(fields, said):
    with pytest.raises(InputError, match=said):
        HardConfig(**fields)
