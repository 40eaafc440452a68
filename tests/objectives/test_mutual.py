"""Deep mutual learning: the loss of each, who moves when, and that a peer's answer is a fresh one."""

import pytest
import timm
import torch

from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.objectives.turns import only_training
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of, wide_classifier
from tests.objectives.tiny import classifier
from tests.oracles import losses as oracle


def networks(count):
    return [(wide_classifier if index % 2 else classifier)(5, seed=index).double() for index in range(count)]


def with_batch_norm(seed):
    torch.manual_seed(seed)
    # By default the last BatchNorm of a block starts at zero, and what lies before it would not move in one step.
    network = timm.create_model("test_resnet", num_classes=5, zero_init_last=False)
    torch.nn.init.normal_(network.fc.weight, std=0.1)
    return Classifier(network, num_classes=5, mean=(0.5,) * 3, std=(0.2,) * 3, input_size=(32, 32)).double()


def mimicry_by_hand(logits, peers):
    """Mean over the images and the peers of KL(p_peer || p)."""
    total = 0.0
    for b, own in enumerate(logits.tolist()):
        p = oracle.probabilities(own)
        total += sum(oracle.kl(oracle.probabilities(peer[b].tolist()), p) for peer in peers) / len(peers)
    return total / len(logits)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_loss(count):
    objective, batch = MutualLearning(networks(count), label_smoothing=0.1), batch_of(6)
    names = ("student", "peer", "peer2", "peer3")[:count]
    assert tuple(objective.players) == names and objective.turns == (names,)
    assert list(objective.students.items()) == list(objective.players.items())
    answers = {name: network(batch.images) for name, network in objective.players.items()}
    for name in names:
        found = losses_of(objective, batch, draws_of(objective, batch), name)
        labelled = sum(
            oracle.cross_entropy(answers[name][b].tolist(), label, 0.1) / 6
            for b, label in enumerate(batch.labels.tolist())
        )
        mimicry = mimicry_by_hand(answers[name], [answers[other] for other in names if other != name])
        assert found["cross_entropy"].item() == pytest.approx(labelled)
        assert found["mimicry"].item() == pytest.approx(mimicry)
        assert found["total"].item() == pytest.approx(labelled + mimicry)


def test_gradient_reaches_the_player_alone():
    objective, batch = MutualLearning(networks(3)), batch_of(6)
    losses_of(objective, batch, draws_of(objective, batch), "peer")["total"].backward()
    for name, network in objective.players.items():
        assert [p.grad is not None for p in network.parameters()] == [name == "peer"] * len([*network.parameters()])


def test_all_see_the_images_of_the_player():
    objective, batch = MutualLearning(networks(2), [FixedAug()]), batch_of(6)
    seen = []
    for network in objective.players.values():
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    draws = draws_of(objective, batch)
    losses_of(objective, batch, draws)
    augmented = objective.policies[0](batch.images, draws.of_policies[0])
    assert len(seen) == 2 and all(torch.equal(images, augmented) for images in seen)


class Street:
    """Two networks with BatchNorm and their optimizers; a turn as the trainer takes it."""

    def __init__(self):
        self.objective = MutualLearning([with_batch_norm(0), with_batch_norm(1)])
        self.nets = self.objective.players
        self.optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.01) for name, net in self.nets.items()}
        self.batch = batch_of(8, image_size=32)

    def state(self):
        return {
            name: {key: value.clone() for key, value in [*net.named_parameters(), *net.named_buffers()]}
            for name, net in self.nets.items()
        }

    def play(self, player):
        """The losses of the player, and the names of what moved in each network."""
        before = self.state()
        with only_training(player, self.nets):
            losses = losses_of(self.objective, self.batch, draws_of(self.objective, self.batch, player), player)
            losses["total"].backward()
        self.optimizers[player].step()
        self.optimizers[player].zero_grad()
        after = self.state()
        moved = {
            name: {key for key, value in after[name].items() if not torch.equal(value, before[name][key])}
            for name in self.nets
        }
        return losses, moved

    @torch.no_grad()
    def answer(self, player):
        """The logits of one who does not play."""
        was = self.nets[player].training
        logits = self.nets[player].eval()(self.batch.images)
        self.nets[player].train(was)
        return logits


def test_who_moved():
    street = Street()
    for player, other in (("student", "peer"), ("peer", "student"), ("student", "peer")):
        _, moved = street.play(player)
        assert moved[other] == set()
        assert {name for name, _ in street.nets[player].named_parameters()} <= moved[player]
        assert any("running_mean" in name for name in moved[player])


def test_the_second_player_learns_from_what_the_first_has_become():
    street = Street()
    stale = street.answer("student")
    street.play("student")
    refreshed = street.answer("student")
    street.nets["peer"].train()
    own = street.nets["peer"](street.batch.images).detach()
    found = street.play("peer")[0]["mimicry"].item()
    assert found == pytest.approx(mimicry_by_hand(own, [refreshed]))
    assert abs(found - mimicry_by_hand(own, [stale])) > 0.01 * found


def test_parts_add_up():
    check_parts_add_up(MutualLearning(networks(3), [FixedAug()]))


def test_errors():
    only = classifier(5)
    for given, said in (([only], "given 1"), ([only, only], "different"), ([only, classifier(7)], r"\[5, 7\]")):
        with pytest.raises(InputError, match=said):
            MutualLearning(given)
