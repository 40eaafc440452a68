"""Rates of layers and head against timm's on the bare network; what is frozen stays to the bit; the average."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.config import TrainConfig
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.layer_groups import knows_layers
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.distillation import Distillation, DistillationConfig
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.training.averaging import exported, keep_average, measured, own_average
from hf_transinv.training.freezing import describe_frozen, describe_probe, probe_steps
from hf_transinv.training.optim import build_optimizer, network_optimizer, network_schedule, unscaled_rate
from hf_transinv.training.players import Players
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.models.families import TINY
from tests.tiny_run import resident_feed, tensors_of, tiny_vit

CONFIG = TrainConfig(max_steps=10, learning_rate=0.02, weight_decay=0.05, optimizer="adamw", warmup_ratio=0.2)


def vit(depth=3) -> Classifier:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2}
    network = timm.create_model("test_vit", num_classes=3, depth=depth, **sizes)
    return Classifier(network, num_classes=3, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=(32, 32))


def resnet() -> Classifier:
    return open_classifier("test_resnet", num_classes=3, pretrained=False)


def wide() -> Classifier:
    return open_classifier("wrn10_1_cifar", num_classes=3, label_names=["0", "1", "2"], pretrained=False)


def trainer_of(objective, folder, augment=CropFlip(), **options) -> Trainer:  # noqa: B008 (frozen)
    own = {"max_steps": 4, "batch_size": 8, "learning_rate": 0.05, "logging_steps": 1, "save_steps": 2}
    config = TrainConfig(**own | options)
    accelerator = Accelerator(cpu=True)
    folder.mkdir(exist_ok=True)
    feeds = {player: resident_feed(8, number, accelerator) for number, player in enumerate(objective.players)}
    return Trainer(
        accelerator, objective, TrainerSetup(feeds, augment, config, config.max_steps, 5.0, folder, "tuned")
    )


def rates(optimizer, network: nn.Module) -> dict[str, tuple[float, float]]:
    """Name of each parameter that is optimised -> its lr_scale and weight decay."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: (group.get("lr_scale", 1.0), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


# Rates


@pytest.mark.parametrize("build", [vit, resnet, wide])
def test_layer_decay_is_timms_on_the_bare_network(build):
    """The very groups, in their order: also that a position embedding and a class token do not decay."""
    student = build()
    ours = network_optimizer(student, replace(CONFIG, layer_decay=0.7))
    theirs = create_optimizer_v2(student.network, "adamw", lr=0.02, weight_decay=0.05, layer_decay=0.7)
    assert rates(ours, student.network) == rates(theirs, student.network)
    assert len(set(rates(ours, student.network).values())) > 4
    for own, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [id(x) for x in own["params"]] == [id(x) for x in other["params"]]
        assert own["lr"] == other["lr"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["test_vit", "swinv2_cr_tiny_224", "test_resnet", "convnextv2_atto"])
def test_what_does_not_decay_is_timms_choice_on_the_bare_network(name, optimizer):
    """The very groups, in their order, whatever the optimizer; and the same with a rate for the head."""
    student = open_classifier(name, num_classes=3, pretrained=False)
    config = replace(CONFIG, optimizer=optimizer)
    theirs = create_optimizer_v2(student.network, optimizer, lr=0.02, weight_decay=0.05)
    for ours in (network_optimizer(student, config), create_optimizer_v2(student, optimizer, 0.02, 0.05)):
        for own, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert [id(x) for x in own["params"]] == [id(x) for x in other["params"]]
            assert own["weight_decay"] == other["weight_decay"]
    expected = {name: decay for name, (_, decay) in rates(theirs, student.network).items()}
    assert ({"pos_embed", "cls_token"} <= {name for name in expected if not expected[name]}) == (name == "test_vit")
    own_head = network_optimizer(student, replace(config, head_learning_rate=0.2))
    assert {name: decay for name, (_, decay) in rates(own_head, student.network).items()} == expected


@pytest.mark.parametrize("layer_decay", [None, 0.7])
@pytest.mark.parametrize(
    ("family", "ends"),
    {
        "vit": (".cls_token", ".position_embeddings"),
        "dinov2_with_registers": (".cls_token", ".mask_token", ".position_embeddings", ".register_tokens"),
        "clip": (".position_embedding.weight",),
        "swin": (".relative_position_bias_table",),
        "swinv2": (".logit_scale", ".continuous_position_bias_mlp.0.weight", ".continuous_position_bias_mlp.2.weight"),
        "convnextv2": (".grn.weight", ".grn.bias"),
        "resnet": (),
    }.items(),
)
def test_what_does_not_decay_of_transformers(family, ends, layer_decay):
    """Biases, what has one dimension, and what timm names for the twins of these networks."""
    from transformers import AutoConfig, AutoModelForImageClassification

    network = AutoModelForImageClassification.from_config(AutoConfig.for_model(family, **TINY[family]))
    facts = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (64, 64), "image_processor": object()}
    student = Classifier(network, num_classes=2, **facts)
    if layer_decay and not knows_layers(network):
        pytest.skip("its layers are not known")
    decays = rates(network_optimizer(student, replace(CONFIG, layer_decay=layer_decay)), network)
    found = {name for name, (_, decay) in decays.items() if not decay and network.get_parameter(name).ndim > 1}
    assert found == {name for name in decays if name.endswith(ends)} and all(
        any(name.endswith(end) for name in found) for end in ends
    )
    assert not any(decay for name, (_, decay) in decays.items() if network.get_parameter(name).ndim == 1)


def test_the_layers_of_transformers_have_the_rates_of_their_twin_in_timm():
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    network = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **sizes, num_labels=3))
    student = vit()
    twin = Classifier(
        network, num_classes=3, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=(32, 32), image_processor=object()
    )
    config = replace(CONFIG, layer_decay=0.5)
    ours, theirs = (rates(network_optimizer(one, config), one.network) for one in (twin, student))
    scales = {scale for scale, _ in ours.values()}
    assert scales == {scale for scale, _ in theirs.values()} == {0.5**power for power in range(5)}
    assert {ours[name][0] for name in ours if "embeddings" in name} == {0.5**4}
    assert ours["vit.layernorm.weight"] == theirs["norm.weight"]
    assert ours["classifier.weight"] == theirs["head.weight"] == (1.0, 0.05)
    assert ours["vit.embeddings.position_embeddings"] == theirs["pos_embed"] == (0.5**4, 0.0)


@pytest.mark.parametrize("layer_decay", [None, 0.7])
def test_the_head_has_a_rate_of_its_own_with_the_same_shape(layer_decay):
    """In every step of warm-up and cosine the head's rate is that of the last layer times the ratio of the two."""
    student = vit()
    config = replace(CONFIG, layer_decay=layer_decay, head_learning_rate=0.2)
    optimizer = network_optimizer(student, config)
    schedule = network_schedule(optimizer, config, 10)
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    reference = network_schedule(plain, config, 10)
    head = {id(parameter) for parameter in student.network.head.parameters()}
    without = rates(network_optimizer(student, replace(config, head_learning_rate=None)), student.network)
    found = rates(optimizer, student.network)
    assert {name: pair for name, pair in found.items() if "head" not in name} == {
        name: pair for name, pair in without.items() if "head" not in name
    }
    assert found["head.weight"] == (pytest.approx(10), 0.05) and found["head.bias"] == (pytest.approx(10), 0.0)
    for step in range(1, 11):
        expected = plain.param_groups[0]["lr"]
        assert unscaled_rate(optimizer) == pytest.approx(expected)
        for group in optimizer.param_groups:
            is_head = {id(parameter) for parameter in group["params"]} <= head
            scale = 10 if is_head else group.get("lr_scale", 1.0)
            assert group["lr"] == pytest.approx(expected * scale, abs=1e-15)
        schedule.step_update(step)
        reference.step_update(step)


def test_a_peer_that_starts_untrained_has_one_rate_for_all():
    objective = MutualLearning([vit(), vit()])
    config = replace(CONFIG, layer_decay=0.7, head_learning_rate=0.2)
    student, peer = (build_optimizer(objective, name, config) for name in ("student", "peer"))
    assert len(student.param_groups) > 4
    assert not any("lr_scale" in group for group in peer.param_groups)


@pytest.mark.parametrize("field", [{"layer_decay": 0.7}, {"head_learning_rate": 0.2}])
def test_a_network_that_is_no_classifier_is_refused(field):
    with pytest.raises(InputError, match="a single classifier, and this method trains a Linear"):
        network_optimizer(nn.Linear(2, 2), replace(CONFIG, **field))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\]"),
        ({"layer_decay": 1.1}, "layer_decay must be"),
        ({"head_learning_rate": 0.0}, "head_learning_rate must be positive"),
        ({"freeze": 0}, "freeze 0: expected all"),
        ({"freeze": "head"}, "freeze 'head': expected all"),
        ({"freeze": True}, "freeze True: expected all"),
        ({"linear_probe_share": 1.0}, r"linear_probe_share is a share of the steps, in \[0, 1\)"),
        ({"linear_probe_share": -0.1}, "linear_probe_share is a share"),
        ({"freeze": "all", "linear_probe_share": 0.3}, "leave out linear_probe_share"),
        ({"freeze": "all", "layer_decay": 0.7}, "leave out layer_decay"),
        ({"freeze": "all", "head_learning_rate": 0.7}, "leave out head_learning_rate"),
        ({"ema": "both"}, "ema 'both' is not one of none, beside, instead"),
        ({"preset": "vit"}, "preset 'vit' is not one of auto"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, said):
    with pytest.raises(InputError, match=said):
        replace(CONFIG, **fields)


# Freezing


@pytest.mark.parametrize(("part", "trains"), [("all", ("fc.",)), (3, ("layer3.", "layer4.", "fc.")), (5, ("fc.",))])
def test_what_is_frozen_stays_to_the_bit_with_its_statistics(tmp_path, part, trains):
    """Weights and BatchNorm's running statistics; the rest of both moves, and weight decay touches nothing frozen."""
    torch.manual_seed(0)
    student = resnet()
    trainer = trainer_of(Supervised(student), tmp_path, freeze=part, weight_decay=0.1, max_steps=3)
    before = copy.deepcopy(student.network.state_dict())
    trainer.train()
    for name, value in student.network.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith(trains), name
    optimised = rates(trainer.optimizers["student"], student.network)
    assert {
        name for name in before if name.startswith(trains) and name in dict(student.network.named_parameters())
    } == {*optimised}
    assert all(
        parameter.grad is None for name, parameter in student.network.named_parameters() if name not in optimised
    )
    assert student.network.bn1.training  # as it was given: held only while it plays
    count = sum(parameter.numel() for parameter in student.parameters())
    trained = sum(dict(student.network.named_parameters())[name].numel() for name in optimised)
    assert describe_frozen(student, part) == [
        f"freeze      {part}: {trained:,} of {count:,} parameters train, {count - trained:,} are frozen"
    ]


def test_a_frozen_step_is_that_of_a_plain_loop(tmp_path):
    """SGD on the head alone, over features of a backbone in evaluation mode."""
    torch.manual_seed(0)
    student = resnet()
    options = {"lr_scheduler": "constant", "warmup_ratio": 0.0, "weight_decay": 0.0, "channels_last": False}
    trainer = trainer_of(Supervised(student), tmp_path, CropFlip("none", False), freeze="all", **options)
    plain = copy.deepcopy(student)
    images, labels = trainer.feeds["student"].next_batch()
    trainer.feeds["student"].load_state_dict({**trainer.feeds["student"].state_dict(), "epoch": 0, "position": 0})
    trainer.take_turn()
    plain.eval()
    loss = nn.functional.cross_entropy(plain(images / 255), labels)
    loss.backward()
    head = list(plain.network.fc.parameters())
    nn.utils.clip_grad_norm_(head, 5.0)
    torch.optim.SGD(head, lr=0.05, momentum=0.9, nesterov=True).step()
    for own, other in zip(student.network.fc.parameters(), head, strict=True):
        torch.testing.assert_close(own, other)


def test_an_augmentation_learns_against_a_frozen_student_and_its_average(tmp_path):
    """The averages of what is frozen are what is frozen, to the bit; phi moves."""
    torch.manual_seed(0)
    student = wide()
    teacher = EMATeacher(student, 0.5)
    panel = AugmentationPanel(1, AugmentationConfig())
    objective = TransInv(Supervised(student), panel, nn.ModuleList([teacher]), TransInvConfig(inner_steps=1))
    trainer = trainer_of(keep_average(objective, 0.5), tmp_path, freeze="all")
    start = tensors_of(trainer)
    trainer.train()
    end = tensors_of(trainer)
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert any(name.startswith("augmentation.") for name in moved)
    networks = {name for name in moved if not name.startswith("augmentation.")}
    head = {f"{place}network.head.fc.{x}" for place in ("student.", "ema.classifier.") for x in ("weight", "bias")}
    assert networks == head | {"ema.num_updates"}


def test_no_number_freezes_the_head(tmp_path):
    with pytest.raises(InputError, match=r"freeze 6: a ResNet has 6 groups of layers.*at most 5, or all"):
        trainer_of(Supervised(resnet()), tmp_path, freeze=6)


def test_the_batchnorm_of_transformers_is_held_too(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], num_labels=3)
    network = ResNetForImageClassification(config)
    student = Classifier(
        network, num_classes=3, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=(32, 32), image_processor=object()
    )
    trainer = trainer_of(Supervised(student), tmp_path, freeze=2, max_steps=2)
    before = copy.deepcopy(network.state_dict())
    trainer.train()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in before} == {
        "resnet.embedder",
        "resnet.encoder",
        "classifier.1",
    }
    assert moved == {name for name in before if name.startswith(("resnet.encoder.stages.1.", "classifier."))}


# The head first


def test_the_head_alone_trains_first_and_then_everything_with_one_schedule(tmp_path):
    """Until the switch the run is that of a frozen one, to the bit; from then on all of it moves."""
    torch.manual_seed(0)
    student = resnet()
    frozen = copy.deepcopy(student)
    options = {"max_steps": 5, "weight_decay": 0.1}
    probed = trainer_of(Supervised(student), tmp_path / "probed", linear_probe_share=0.5, **options)
    whole = trainer_of(Supervised(frozen), tmp_path / "frozen", freeze="all", **options)
    before = copy.deepcopy(student.network.state_dict())
    for _ in range(3):  # half of five steps, rounded up
        probed.take_turn()
        whole.take_turn()
        assert unscaled_rate(probed.optimizers["student"]) == unscaled_rate(whole.optimizers["student"])
    for (name, value), other in zip(
        student.network.state_dict().items(), frozen.network.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
        assert torch.equal(value, before[name]) != name.startswith("fc."), name
    assert all(parameter.requires_grad for parameter in student.parameters())  # held only while it plays
    probed.take_turn()
    state = student.network.state_dict().items()
    assert not any(torch.equal(value, before[name]) for name, value in state if value.ndim > 1 or "running" in name)


def test_what_is_frozen_for_good_stays_so_after_the_head(tmp_path):
    torch.manual_seed(0)
    student = resnet()
    trainer = trainer_of(Supervised(student), tmp_path, freeze=3, linear_probe_share=0.5)
    before = copy.deepcopy(student.network.state_dict())
    trainer.train()
    moved = {name for name, value in student.network.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith(("layer3.", "layer4.", "fc.")) for name in moved)
    assert {"layer3.0.conv1.weight", "layer4.0.bn1.running_mean", "fc.weight"} <= moved


def test_networks_beside_the_student_start_untrained_and_train_at_once(tmp_path):
    torch.manual_seed(0)
    objective = MutualLearning([vit(), vit()])
    trainer = trainer_of(objective, tmp_path, linear_probe_share=0.5)
    before = {name: copy.deepcopy(player.state_dict()) for name, player in objective.players.items()}
    trainer.take_turn()
    moved = {
        name: {key for key, value in player.state_dict().items() if not torch.equal(value, before[name][key])}
        for name, player in objective.players.items()
    }
    assert moved["student"] == {"network.head.weight", "network.head.bias"} < moved["peer"]


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_run_that_is_resumed_switches_at_the_same_step_to_the_bit(tmp_path, stopped):
    """Stopped before the switch and after it; the length of a run that was extended does not move it."""

    def built(folder) -> Trainer:
        torch.manual_seed(0)
        return trainer_of(keep_average(Supervised(wide()), 0.9), folder, linear_probe_share=0.5, optimizer="adamw")

    whole, half = built(tmp_path / "whole"), built(tmp_path / "half")
    whole.train()
    for _ in range(stopped):
        half.take_turn()
    half.save()
    torch.manual_seed(7)
    resumed = built(tmp_path / "half")
    resumed.resume(tmp_path / "half" / "checkpoints" / f"step_{stopped:08d}")
    resumed.train()
    ends = tensors_of(whole), tensors_of(resumed)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_switch_is_where_the_run_was_started_with_it(tmp_path):
    config, accelerator = replace(CONFIG, linear_probe_share=0.3), Accelerator(cpu=True)
    lengths = ((0, 10), (4, 20))
    assert Players(accelerator, Supervised(vit()), CropFlip(), config, lengths)._probe.steps == 3
    assert [probe_steps(*pair) for pair in [(0.0, 1), (0.01, 10), (0.99, 10), (0.5, 2)]] == [0, 1, 9, 1]
    assert describe_probe(0.3, 10) == ["probe       the first 3 of 10 steps train the classifier head alone"]
    assert describe_probe(0.0, 10) == []
    with pytest.raises(InputError, match="one step in all"):
        Players(accelerator, Supervised(vit()), CropFlip(), config, ((0, 1),))
    with pytest.raises(InputError, match="linear_probe_share trains its head alone at first"):
        Players(SimpleNamespace(is_fsdp2=True), Supervised(vit()), CropFlip(), config, lengths)
    with pytest.raises(InputError, match="linear_probe_share is for a single classifier"):
        Players(accelerator, Supervised(nn.Linear(2, 2)), CropFlip(), config, lengths)


# The average


def test_the_average_is_that_of_a_plain_loop_and_its_own_result(tmp_path):
    torch.manual_seed(0)
    objective = keep_average(Supervised(vit()), 0.9)
    average, student = objective.average, objective.players["student"]
    expected = {name: value.clone() for name, value in student.state_dict().items()}
    trainer = trainer_of(objective, tmp_path)
    for step in range(4):
        trainer.take_turn()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * x for name, x in student.state_dict().items()}
    for name, value in average.classifier.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
    assert measured(objective) == {"student": student, "EMA": average.classifier}
    assert exported(objective, "instead") is average.classifier
    assert exported(objective, "beside") is exported(objective, "none") is student


def test_a_teacher_that_is_the_average_is_shared(tmp_path):
    student = vit()
    teacher = EMATeacher(student, 0.9)
    objective = keep_average(Distillation(student, [teacher], DistillationConfig()), 0.9)
    assert objective.average is teacher and own_average(objective) == {}
    trainer = trainer_of(objective, tmp_path)
    trainer.take_turn()
    assert int(teacher.num_updates) == 1
    assert set(trainer.modules) == {"student", "distillation_ema"}


@pytest.mark.parametrize(
    ("build", "options"),
    [(vit, {"freeze": 2, "layer_decay": 0.7, "optimizer": "adamw"}), (wide, {"freeze": 2, "head_learning_rate": 0.1})],
)
def test_resumed_with_all_of_it_equals_uninterrupted_to_the_bit(tmp_path, build, options):
    def built(folder) -> Trainer:
        torch.manual_seed(0)
        return trainer_of(keep_average(Supervised(build()), 0.9), folder, **options)

    whole = built(tmp_path / "whole")
    start = tensors_of(whole)
    whole.train()
    half = built(tmp_path / "half")
    half.take_turn()
    half.take_turn()
    half.save()
    torch.manual_seed(7)
    resumed = built(tmp_path / "half")
    resumed.resume(tmp_path / "half" / "checkpoints" / "step_00000002")
    resumed.train()
    ends = tensors_of(whole), tensors_of(resumed)
    assert ends[0].keys() == ends[1].keys() and any(name.startswith("student_average.") for name in ends[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    moved = {name for name in start if not torch.equal(start[name], ends[0][name])}
    assert moved and not any("patch_embed" in name or "network.stem" in name for name in moved)
    layers = [layer for layer in whole.players._frozen_norms if isinstance(layer, _BatchNorm)]
    assert bool(layers) is (build is wide)


def test_a_checkpoint_without_the_average_is_refused(tmp_path):
    trainer_of(Supervised(tiny_vit()), tmp_path, max_steps=2).train()
    with pytest.raises(InputError, match="it has no student_average"):
        trainer_of(keep_average(Supervised(tiny_vit()), 0.9), tmp_path, max_steps=2).resume(
            tmp_path / "checkpoints" / "step_00000002"
        )
