"""Augmentation Invariant Training against its equations, and where its gradient flows."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F

from hf_transinv.augment.policies.fixed import FixedAug
from hf_transinv.augment.policies.jitter import ColorJitter, RandomGrayscale
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.features import last_layer
from hf_transinv.objectives.invariant import InvariantConfig, InvariantTraining
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of
from tests.objectives.tiny import classifier
from tests.oracles import losses as oracle


def timm_classifier(architecture="test_vit", classes=5, size=32):
    """A network of timm that has no BatchNorm (test_vit), in double precision."""
    torch.manual_seed(0)
    options = {"img_size": size} if "vit" in architecture else {}
    network = timm.create_model(architecture, num_classes=classes, **options)
    torch.nn.init.normal_(network.get_classifier().weight, std=0.5)
    statistics = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    return Classifier(network, num_classes=classes, input_size=(size, size), **statistics).double()


def slow_losses(logits, compared, labels, metric, smoothing=0.0):
    """Mean over the images of both cross-entropies, and of L_Ai."""
    labelled = invariance = 0.0
    for b, label in enumerate(labels.tolist()):
        labelled += sum(oracle.cross_entropy(variant[b].tolist(), label, smoothing) for variant in logits)
        first, second = (variant[b].tolist() for variant in compared)
        invariance += oracle.ai_loss(first, second) if metric in ("kl", "both") else 0.0
        invariance += oracle.euclidean(first, second) if metric in ("euclidean", "both") else 0.0
    return labelled / len(labels), invariance / len(labels)


@pytest.mark.parametrize("weight", [1.0, 2.5])
@pytest.mark.parametrize("metric", ["kl", "euclidean", "both"])
def test_loss_of_logits(metric, weight):
    student, batch = classifier(5).double(), batch_of(7, variants=2)
    objective = InvariantTraining(student, InvariantConfig(weight, metric), label_smoothing=0.1)
    found = losses_of(objective, batch, draws_of(objective, batch))
    answers = [student(images) for images in batch.variants]
    labelled, invariance = slow_losses(answers, answers, batch.labels, metric, 0.1)
    assert found["cross_entropy"].item() == pytest.approx(labelled)
    assert found["ai_loss"].item() == pytest.approx(invariance) and invariance > 0.1
    assert found["total"].item() == pytest.approx(labelled + weight * invariance)


@pytest.mark.parametrize("metric", ["kl", "euclidean", "both"])
def test_loss_of_features(metric):
    student, batch = timm_classifier(), batch_of(3, variants=2, image_size=32)
    objective = InvariantTraining(student, InvariantConfig(1.0, metric, "features"))
    found = losses_of(objective, batch, draws_of(objective, batch))
    network, features = student.network, []
    for images in batch.variants:
        before = network.forward_features(student.prepare(images))
        features.append(network.forward_head(before, pre_logits=True))
    logits = [student(images) for images in batch.variants]
    labelled, invariance = slow_losses(logits, features, batch.labels, metric)
    assert found["cross_entropy"].item() == pytest.approx(labelled)
    assert found["ai_loss"].item() == pytest.approx(invariance) and invariance > 1e-4


def test_the_hook_is_gone_afterwards():
    student = timm_classifier()
    objective, batch = InvariantTraining(student, InvariantConfig(ait_layer="features")), batch_of(2, 2, 32)
    losses_of(objective, batch, draws_of(objective, batch))
    assert not last_layer(student)._forward_pre_hooks


def gradients_of(objective, batch):
    total = losses_of(objective, batch, draws_of(objective, batch))["total"]
    return torch.autograd.grad(total, list(objective.players["student"].parameters()))


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_flows_through_both_variants_unless_detached(detach):
    """PyTorch's own kl_div is the reference."""
    student, batch = classifier(5).double(), batch_of(6, variants=2)
    objective = InvariantTraining(student, InvariantConfig(2.0, ait_detach_target=detach))
    found = gradients_of(objective, batch)
    first, second = (F.log_softmax(student(images), 1) for images in batch.variants)
    expected = F.nll_loss(first, batch.labels) + F.nll_loss(second, batch.labels)
    for target, answer in ((first, second), (second, first)):
        target = target.detach() if detach else target
        expected = expected + 2.0 * F.kl_div(answer, target, reduction="batchmean", log_target=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, list(student.parameters())))


def test_detaching_changes_the_gradient_but_not_the_value():
    batch, student = batch_of(6, variants=2), classifier(5).double()
    both = [InvariantTraining(student, InvariantConfig(ait_detach_target=detach)) for detach in (False, True)]
    values = [losses_of(objective, batch, draws_of(objective, batch))["total"].item() for objective in both]
    assert values[0] == pytest.approx(values[1])
    free, held = (torch.cat([g.flatten() for g in gradients_of(objective, batch)]) for objective in both)
    assert (free - held).norm() > 0.05 * free.norm()


def test_equal_variants_cost_nothing():
    batch = batch_of(4)
    batch = type(batch)(batch.images, batch.labels, 4, others=(batch.images,))
    objective = InvariantTraining(classifier(5).double(), InvariantConfig(ait_metric="both"))
    found = losses_of(objective, batch, draws_of(objective, batch))
    assert found["ai_loss"].item() == pytest.approx(0, abs=1e-12)
    assert all(gradient.isfinite().all() for gradient in gradients_of(objective, batch))


class TestPolicies:
    def variants_seen(self, objective, batch):
        seen = []
        hook = objective.players["student"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        draws = draws_of(objective, batch)
        losses_of(objective, batch, draws)
        hook.remove()
        assert len(seen) == 1  # one pass for both variants
        return seen[0].chunk(2), draws

    def test_one_policy_is_drawn_anew_for_the_second_variant(self):
        policy, batch = FixedAug(), batch_of(6, variants=2)
        objective = InvariantTraining(classifier(5).double(), InvariantConfig(), [policy])
        (first, second), draws = self.variants_seen(objective, batch)
        of_first, of_second = (variant.of_policies[0] for variant in draws.variants)
        assert not torch.equal(of_first.which, of_second.which)
        torch.testing.assert_close(first, policy(batch.images, of_first))
        torch.testing.assert_close(second, policy(batch.others[0], of_second))

    def test_a_policy_for_each(self):
        """Table 5's "rp,rg": grey only in the second variant."""
        gray, batch = RandomGrayscale(1.0), batch_of(6, variants=2)
        objective = InvariantTraining(classifier(5).double(), InvariantConfig(), [], [gray])
        (first, second), _ = self.variants_seen(objective, batch)
        assert torch.equal(first, batch.images) and objective.policies == (gray,)
        assert torch.equal(second, gray(batch.others[0], torch.ones(6, dtype=torch.bool)))

    def test_none_for_the_second(self):
        jitter, batch = ColorJitter(), batch_of(6, variants=2)
        objective = InvariantTraining(classifier(5).double(), InvariantConfig(), [jitter], [])
        (first, second), _ = self.variants_seen(objective, batch)
        assert not torch.equal(first, batch.images) and torch.equal(second, batch.others[0])


@pytest.mark.parametrize("config", [InvariantConfig(), InvariantConfig(2.0, "both", ait_detach_target=True)])
def test_parts_add_up(config):
    check_parts_add_up(InvariantTraining(classifier(5).double(), config, [FixedAug()]), variants=2)


def test_parts_of_features_add_up():
    objective = InvariantTraining(timm_classifier(), InvariantConfig(1.0, "both", "features"))
    check_parts_add_up(objective, variants=2, image_size=32)


def test_it_needs_two_variants():
    objective = InvariantTraining(classifier(5).double(), InvariantConfig())
    assert objective.variants == 2
    batch = batch_of(4)
    with pytest.raises(ValueError, match="zip"):
        losses_of(objective, batch, draws_of(objective, batch))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ait_metric": "cosine"}, "ait_metric 'cosine' is not one of kl, euclidean, both"),
        ({"ait_layer": "pixels"}, "ait_layer"),
        ({"ait_lambda": -1.0}, "ait_lambda"),
        ({"ait_metric": "euclidean", "ait_detach_target": True}, "ait_detach_target"),
    ],
)
def test_config_errors(fields, said):
    with pytest.raises(InputError, match=said):
        InvariantConfig(**fields)


def test_features_of_a_network_with_two_classifiers():
    student = timm_classifier()
    twins = copy.deepcopy(student)
    twins.network = timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=5, img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=1
    )
    with pytest.raises(InputError, match="one classifier"):
        InvariantTraining(twins, InvariantConfig(ait_layer="features"))
    InvariantTraining(twins, InvariantConfig())
