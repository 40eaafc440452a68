"""L2-SP against its equation, number by number; its start in checkpoints; and what a run by it is and is not given."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.experiment.methods import GROUPS
from hf_transinv.experiment.presets import parse_run
from hf_transinv.models.classifier import open_classifier
from hf_transinv.objectives.l2_sp import L2SP, L2SPConfig
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv
from hf_transinv.training.players import Players
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.objectives.parts import batch_of, check_parts_add_up, draws_of, losses_of
from tests.objectives.tiny import panel, seeded, teacher
from tests.oracles import losses as oracle
from tests.tiny_run import resident_feed, tiny_vit

RUN = [DataConfig, StudentConfig, TrainConfig, *GROUPS, OutputConfig]
STARTED = ["--student", "test_resnet", "--student_init", "pretrained", "--max_steps", "3", "--method", "l2_sp"]


def moved(alpha=0.7, beta=0.3, seed=0, **options) -> L2SP:
    """A student that has gone away from its start by one hundredth of a normal number per parameter."""
    torch.manual_seed(seed)
    objective = L2SP(tiny_vit(5).double(), L2SPConfig(alpha, beta), **options)
    with torch.no_grad():
        for parameter in objective.players["student"].parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=seeded(3)).double()
    return objective


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss(smoothing):
    objective, batch = moved(label_smoothing=smoothing), batch_of(4, image_size=32)
    student, start = objective.players["student"].network, dict(objective.start.classifier.network.named_parameters())
    answers = objective.players["student"](batch.images).tolist()
    labelled = [oracle.cross_entropy(a, y, smoothing) for a, y in zip(answers, batch.labels.tolist(), strict=True)]
    drift = size = 0.0
    for name, weight in student.named_parameters():
        if name.endswith("bias") or "norm" in name:
            continue
        own = weight.flatten().tolist()
        if name == "head.weight":
            size += 0.3 / 2 * sum(value**2 for value in own)
        else:
            drift += 0.7 / 2 * sum((value - at) ** 2 for value, at in zip(own, start[name].flatten(), strict=True))
    found = losses_of(objective, batch, draws_of(objective, batch))
    assert found["start_penalty"].item() == pytest.approx(float(drift)) and drift > 0.1
    assert found["head_penalty"].item() == pytest.approx(size) and size > 1e-4
    assert found["total"].item() == pytest.approx(sum(labelled) / 4 + float(drift) + size)


def test_the_penalties_pull_at_weights_alone():
    """Their gradient is alpha (w - w0) and beta v, and that of biases and normalisation is the cross-entropy's."""
    objective, batch = moved(), batch_of(4, image_size=32)
    student, start = objective.players["student"], objective.start.classifier.network
    plain = Supervised(student)
    slopes = [
        torch.autograd.grad(losses_of(one, batch, draws_of(one, batch))["total"], list(student.parameters()))
        for one in (objective, plain)
    ]
    pulled = set()
    for (name, weight), at, with_it, without in zip(
        student.network.named_parameters(), start.parameters(), *slopes, strict=True
    ):
        expected = 0.3 * weight if name == "head.weight" else 0.7 * (weight - at)
        is_weight = weight.ndim > 1
        torch.testing.assert_close(with_it - without, expected if is_weight else torch.zeros_like(expected))
        pulled |= {name} if is_weight else set()
    assert {"head.weight", "patch_embed.proj.weight", "pos_embed"} <= pulled


def test_micro_batches_and_processes_add_up():
    check_parts_add_up(moved(), image_size=32)


def test_at_its_start_there_is_nothing_to_pay():
    objective, batch = L2SP(tiny_vit(5).double(), L2SPConfig(1e3, 0.0)), batch_of(4, image_size=32)
    found = losses_of(objective, batch, draws_of(objective, batch))
    assert found["start_penalty"].item() == found["head_penalty"].item() == 0
    found["total"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in objective.players["student"].parameters())


def trainer_of(seed, folder, student=None, **options) -> Trainer:
    torch.manual_seed(seed)
    own = {"max_steps": 4, "batch_size": 8, "learning_rate": 0.05, "weight_decay": 0.0, "save_steps": 2}
    config, accelerator = TrainConfig(**own | options), Accelerator(cpu=True)
    feeds = {"student": resident_feed(8, 0, accelerator)}
    setup = TrainerSetup(feeds, CropFlip(), config, config.max_steps, 5.0, folder)
    return Trainer(accelerator, L2SP(student or tiny_vit(), L2SPConfig(0.5, 0.1)), setup)


def test_the_start_is_that_of_the_run_that_is_resumed(tmp_path):
    whole = trainer_of(0, tmp_path)
    start = {name: value.clone() for name, value in whole.objective.players["student"].state_dict().items()}
    whole.train()
    resumed = trainer_of(1, tmp_path)  # other weights until it has read the checkpoint
    resumed.resume(tmp_path / "checkpoints" / "step_00000002")
    resumed.train()
    kept = resumed.objective.start.classifier.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in kept.items())
    ends = (one.objective.players["student"].state_dict() for one in (whole, resumed))
    assert all(torch.equal(*pair) for pair in zip(*(end.values() for end in ends), strict=True))


def test_a_larger_alpha_keeps_the_backbone_nearer(tmp_path):
    ends = {}
    for alpha in (0.0, 50.0):
        trainer = trainer_of(0, tmp_path / str(alpha))
        trainer.objective.config = L2SPConfig(alpha, 0.0)
        start, student = trainer.objective.start.classifier.network, trainer.objective.players["student"].network
        for _ in range(4):
            trainer.take_turn()
        ends[alpha] = (student.patch_embed.proj.weight - start.patch_embed.proj.weight).norm().item()
    assert 0 < ends[50.0] < 0.5 * ends[0.0]


def test_frozen_layers_get_no_gradient(tmp_path):
    trainer = trainer_of(0, tmp_path, open_classifier("test_resnet", num_classes=3, pretrained=False), freeze=3)
    student = trainer.objective.players["student"].network
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trainer.take_turn()
    moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(("layer3.", "layer4.", "fc.")) for name in moved)


def test_a_sharded_student_is_refused():
    with pytest.raises(InputError, match="FSDP2 shards the student, and L2-SP compares all its weights"):
        Players(SimpleNamespace(is_fsdp2=True), L2SP(tiny_vit()), CropFlip(), TrainConfig(max_steps=1), ((0, 1),))
    over = TransInv(L2SP(tiny_vit()), panel(1), [teacher(3, 32)])
    assert over.keeps_start and "start" in over.extra_state()


# A run


def test_a_run_has_no_weight_decay_and_says_so():
    groups, said = parse_run(RUN, STARTED)
    loop = next(one for one in groups if isinstance(one, TrainConfig))
    assert (loop.preset, loop.weight_decay) == ("finetune_cnn", 0.0)
    assert "weight_decay 0.0" in said and said.endswith("; weight_decay 0: l2_sp has a penalty in its place")
    assert parse_run(RUN, [*STARTED, "--weight_decay", "0"])[0][2].weight_decay == 0
    assert parse_run(RUN, [*STARTED, "--preset", "scratch"])[0][2].weight_decay == 0
    assert parse_run(RUN, [*STARTED[:-1], "supervised"])[0][2].weight_decay == 1e-4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--weight_decay", "1e-4"], "weight_decay 0.0001: method l2_sp has a penalty in its place"),
        (["--student_init", "scratch"], "would keep the student near random weights"),
        (["--freeze", "all"], "keeps the backbone near its start, where freeze all keeps it already"),
        (["--l2_sp_alpha", "-1"], "l2_sp_alpha must be at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, said):
    with pytest.raises(InputError, match=said):
        parse_run(RUN, [*STARTED, *flags])


def test_in_a_comparison_its_row_alone_has_no_weight_decay(tmp_path):
    (tmp_path / "table.yaml").write_text(
        "dataset: digits/target\nstudent: test_resnet\nstudent_init: pretrained\nmax_steps: 3\nweight_decay: 0.01\n"
        "rows:\n  fine-tuning: {}\n  L2-SP: {method: l2_sp}\n"
    )
    comparison = read_comparison(["--config", str(tmp_path / "table.yaml")])
    assert [row.train.weight_decay for row in comparison.rows] == [0.01, 0.0]
    assert comparison.overrides == {"fine-tuning": {}, "L2-SP": {"method": "l2_sp", "weight_decay": 0.0}}
    with pytest.raises(InputError, match=r"row 'L2-SP'.*near random weights"):
        read_comparison(["--config", str(tmp_path / "table.yaml"), "--student_init", "scratch"])


def test_a_network_without_a_backbone_is_refused():
    torch.manual_seed(0)
    student = tiny_vit()
    student.network.get_classifier = lambda: student.network
    with pytest.raises(InputError, match="no weights but those of its classifier head"):
        L2SP(student)
