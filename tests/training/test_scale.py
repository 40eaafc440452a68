"""What outgrows one machine: launch configurations, what two processes send each other, shards, teachers elsewhere.

That two processes give the parameters and losses of one is in test_distributed.py, that they give the digits of one in
an evaluation in test_evaluation.py.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed.fsdp import FSDPModule

from hf_transinv.config import OutputConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import start_accelerator
from hf_transinv.models import EMATeacher, Teacher, open_classifier, place_teachers
from hf_transinv.training.distributed import Placement
from tests.launching import ACCELERATE, MULTI_TEACHER, REPOSITORY, TWO_PROCESSES, succeed, tiny_vit_folder
from tests.tiny_run import tiny_vit

CONFIGS = sorted((REPOSITORY / "recipes" / "accelerate").glob("*.yaml"))
ON_CPU = {"ACCELERATE_USE_CPU": "true"}


# Launch configurations


def launcher_arguments(config):
    return launch_command_parser().parse_args(["--config_file", str(config), "recipe.py"])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_launch_configuration(config):
    asked = load_config_from_file(str(config))
    known = launcher_arguments(config)
    assert all(hasattr(known, key) for key in asked.fsdp_config)  # the launcher itself takes any
    arguments, _, _ = _validate_launch_command(known)
    kinds = {
        "cpu": (False, False, 1),
        "one_gpu": (False, False, 1),
        "multi_gpu": (True, False, 4),
        "multi_node": (True, False, 8),
        "fsdp2": (False, True, 4),
    }
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.num_processes) == kinds[config.stem]
    assert arguments.mixed_precision == "bf16" and arguments.use_cpu == (config.stem == "cpu")


def test_the_sharded_launch_arrives_as_fsdp2(monkeypatch):
    config = REPOSITORY / "recipes" / "accelerate" / "fsdp2.yaml"
    arguments, _, _ = _validate_launch_command(launcher_arguments(config))
    arguments.main_process_port = 0  # any free one
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP")):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.min_num_params == 1_000_000 and not plugin.cpu_ram_efficient_loading


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed was asked for: its engine takes one model"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM was asked for: it trains its own language models"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "gives each process images of its own"),
        ("ACCELERATE_USE_FSDP", "true", "accelerate shards among several GPUs only"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "give it to the recipe instead"),
    ],
)
def test_a_launch_that_cannot_work_is_refused_with_the_reason(monkeypatch, variable, value, reason):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as refusal:
        start_accelerator(OutputConfig())
    assert reason in str(refusal.value)


def flags(folder: Path) -> list[object]:
    student = tiny_vit_folder(folder / "vit", ["0", "1"])
    given = {
        **{"dataset": "digits/target", "image_size": 32, "student": student, "teachers": "ema", "batch_size": 16},
        **{"max_steps": 3, "inner_steps": 2, "save_steps": 2, "eval_corruptions": "none"},
    }
    return [item for name, value in given.items() for item in (f"--{name}", value)]


@pytest.mark.slow
def test_the_recipe_runs_under_the_launch_configuration_of_a_cpu(tmp_path):
    launcher = [*ACCELERATE, "--config_file", str(REPOSITORY / "recipes" / "accelerate" / "cpu.yaml")]
    succeed(launcher, MULTI_TEACHER, *flags(tmp_path), "--output_dir", tmp_path / "out", cwd=tmp_path)
    hardware = json.loads((tmp_path / "out" / "run.json").read_text())["hardware"]
    assert (hardware["device"], hardware["processes"], hardware["mixed_precision"]) == ("cpu", 1, "bf16")


# Two processes, replicated and in shards

TWO_KINDS = """
import sys
from pathlib import Path
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.tensor import DTensor
from accelerate import Accelerator
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.hub.export import export_classifier
from hf_transinv.config import OutputConfig, TrainConfig
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import start_accelerator
from hf_transinv.models import EMATeacher, open_classifier
from hf_transinv.objectives.multi_invariant import MultiInvariantConfig, MultiInvariantTraining
from hf_transinv.objectives.mutual import MutualLearning
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.training.averaging import keep_average
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.sharding import shard_on_cpu
from hf_transinv.training.validation import open_validation
from tests.tiny_run import resident_feed, tensors_of, tiny_data, tiny_trainer

folder, saved = Path(sys.argv[1]), {}


def wide_student():
    return open_classifier("wrn10_1_cifar", num_classes=3, label_names=["0", "1", "2"], pretrained=False)


def transinv():
    student = wide_student()
    teachers = torch.nn.ModuleList([EMATeacher(student)])
    panel = AugmentationPanel(1, AugmentationConfig())
    return TransInv(Supervised(student), panel, teachers, TransInvConfig(inner_steps=2))


def trainer_of(build, name, **options):
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    torch.manual_seed(0)
    objective = build()
    # Clipping bites; a large epsilon keeps AdamW's first steps from being the sign of a rounding error.
    own = {"max_steps": 4, "batch_size": 8, "learning_rate": 0.05, "max_grad_norm": 0.5, "save_steps": 2}
    config = TrainConfig(**own | {"gradient_accumulation_steps": 2, "logging_steps": 1} | options)
    feeds = {player: resident_feed(8, number, accelerator) for number, player in enumerate(objective.players)}
    (folder / name).mkdir(exist_ok=True)
    # Three batches: the processes have other numbers of them.
    output = OutputConfig(eval_steps=2, load_best_model_at_end=True, eval_batch_size=10)
    validation = open_validation(objective.students, tiny_data(), accelerator, output, 5.0)
    setup = TrainerSetup(
        feeds, CropFlip(), config, config.max_steps, 5.0, folder / name, name, validation=validation)
    trainer = Trainer(accelerator, objective, setup)
    for player, optimizer in trainer.optimizers.items():
        for group in optimizer.param_groups if player == "augmentation" else ():
            group["eps"] = 1e-3
    return trainer


def trained(build, name, resume_from=None, **options):
    trainer = trainer_of(build, name, **options)
    if resume_from:
        trainer.resume(folder / resume_from / "checkpoints" / "step_00000002")
    trainer.train()
    trainer.finish()
    saved[name], saved[f"{name}_told"] = tensors_of(trainer), trainer.validation.told()
    return trainer


def mutual():
    return MutualLearning([wide_student(), wide_student()])


def tuned():
    return keep_average(Supervised(wide_student()), 0.9)


def refusal(act):
    try:
        act()
    except InputError as error:
        return str(error)


# What is sent in each turn of the replicated players.
counted = tiny_trainer(folder / "counted", gradient_accumulation_steps=2)
sent = {}
for player, net in counted.players.nets.items():
    def count(state, bucket, player=player):
        sent[player] = sent.get(player, 0) + bucket.buffer().numel()
        return allreduce_hook(None, bucket)
    net.register_comm_hook(None, count)
saved["turns"] = []
for turn in range(3):
    counted.take_turn()
    saved["turns"].append((counted.objective.next_turn(turn), dict(sent)))
    sent.clear()
saved["sizes"] = {
    player: sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    for player, net in counted.players.nets.items()
}
saved["sync"] = refusal(lambda: trainer_of(transinv, "sync", sync_batchnorm=True))

trained(transinv, "replicated")
trained(mutual, "replicated_peers")
fine = {"freeze": 2, "layer_decay": 0.7, "head_learning_rate": 0.1}
trained(tuned, "replicated_tuned", **fine)
shard_on_cpu()
sharded = trainer_of(transinv, "look")
parameters = list(sharded.objective.players["student"].parameters())
saved["local"] = sum(x.to_local().numel() if isinstance(x, DTensor) else x.numel() for x in parameters)
saved["whole"] = sum(x.numel() for x in parameters)
student = trained(transinv, "sharded").objective.players["student"]
trained(transinv, "resumed", "sharded")
trained(transinv, "from_replicated", "replicated")
trained(mutual, "sharded_peers")
trained(tuned, "sharded_tuned", **fine)
if Accelerator(cpu=True).is_main_process:
    export_classifier(student, folder / "student")
saved["cohort"] = refusal(lambda: trainer_of(
    lambda: MultiInvariantTraining([wide_student(), wide_student()], MultiInvariantConfig()), "cohort"
))
saved["push"] = refusal(lambda: start_accelerator(OutputConfig(push_to_hub="me/student", push_every=2)))
accelerator = Accelerator(cpu=True)
torch.save(saved, folder / f"rank{accelerator.process_index}.pt")
accelerator.wait_for_everyone()
accelerator.end_training()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder, and what each of two processes saw in it."""
    if not hasattr(FSDPModule, "set_reshard_after_forward"):
        pytest.skip(f"torch {torch.__version__} is refused for FSDP2")
    folder = tmp_path_factory.mktemp("scale")
    (folder / "main.py").write_text(TWO_KINDS)
    succeed(TWO_PROCESSES, folder / "main.py", folder, cwd=folder, **ON_CPU)
    return folder, [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def test_only_the_gradients_of_the_player_whose_turn_it_is_are_sent(two):
    """Each once, although a turn has two micro-batches; nothing for the student in the augmentation's turn."""
    for rank in two[1]:
        sizes = rank["sizes"]
        assert rank["turns"] == [
            (("student",), {"student": sizes["student"]}),
            (("student",), {"student": sizes["student"]}),
            (("augmentation",), {"augmentation": sizes["augmentation"]}),
        ]


@pytest.mark.parametrize(
    "name", ["replicated", "sharded", "resumed", "replicated_peers", "sharded_peers", "sharded_tuned"]
)
def test_all_processes_end_with_the_same_bits(two, name):
    """BatchNorm statistics and the average too."""
    first, second = (rank[name] for rank in two[1])
    assert first.keys() == second.keys() and any(key.endswith("running_var") for key in first)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_each_process_has_half_of_a_sharded_student(two):
    for rank in two[1]:
        assert rank["local"] < 0.55 * rank["whole"]
    assert sum(rank["local"] for rank in two[1]) == two[1][0]["whole"]


@pytest.mark.parametrize("kind", ["", "_peers", "_tuned"])
def test_sharded_training_is_replicated_training(two, kind):
    """Clipping, micro-batches, the augmentation's turns, averages, peers that answer each other, frozen layers."""
    first = two[1][0]
    assert largest_difference(first[f"replicated{kind}"], first[f"sharded{kind}"]) < 1e-5


def test_a_sharded_run_resumes_to_the_bit(two):
    first = two[1][0]
    assert largest_difference(first["resumed"], first["sharded"]) == 0


def test_a_sharded_run_resumes_from_a_replicated_one(two):
    first = two[1][0]
    assert largest_difference(first["from_replicated"], first["replicated"]) < 1e-5


@pytest.mark.parametrize("kind", ["", "_peers"])
def test_a_sharded_student_is_measured_as_a_replicated_one(two, kind):
    """Its best student as well, which is part of the tensors that the tests above compare."""
    first, second = two[1]
    told, other = first[f"sharded{kind}_told"], first[f"replicated{kind}_told"]
    assert told == second[f"sharded{kind}_told"] and told["step"] == other["step"] and told["is_loaded"]
    assert told["value"] == pytest.approx(other["value"], abs=1e-4)
    assert any(name.startswith("best.student.") for name in first[f"sharded{kind}"])


def test_a_sharded_student_is_exported_whole(two):
    folder, (first, _) = two
    student = open_classifier(str(folder / "student"))
    expected = {
        name.removeprefix("student."): x for name, x in first["sharded"].items() if name.startswith("student.")
    }
    assert student.label_names == ["0", "1", "2"]
    assert largest_difference(student.state_dict(), expected) == 0


def test_what_cannot_be_sharded_or_synchronised_is_refused(two):
    for rank in two[1]:
        assert "FSDP2 shards classifiers, and this method trains a Cohort" in rank["cohort"]
        assert "push_every: one process alone pushes" in rank["push"]
        assert "SyncBatchNorm works on GPUs only" in rank["sync"]


@pytest.mark.slow
def test_the_recipe_runs_in_shards(tmp_path):
    """To the exported student and its figures, from the start and resumed."""
    lines = ["import runpy, sys", "from tests.sharding import shard_on_cpu", "shard_on_cpu()"]
    (tmp_path / "sharded.py").write_text("\n".join([*lines, "runpy.run_path(sys.argv.pop(1), run_name='__main__')"]))
    for out, extra in (("out", ()), ("out", ("--resume_from", "latest"))):
        given = [MULTI_TEACHER, *flags(tmp_path), "--output_dir", tmp_path / out, *extra]
        succeed(TWO_PROCESSES, tmp_path / "sharded.py", *given, cwd=tmp_path, **ON_CPU)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["status"] == "finished" and run["hardware"]["processes"] == 2
    open_classifier(str(tmp_path / "out" / "student"))


# BatchNorm over all processes


def placed(num_processes):
    """A student where `num_processes` processes train on a device that is no CPU (its tensors have no content)."""
    accelerator = SimpleNamespace(num_processes=num_processes, device=torch.device("meta"), is_fsdp2=False)
    student = open_classifier("wrn10_1_cifar", num_classes=3, pretrained=False)
    names = list(student.state_dict())
    Placement(accelerator, torch.channels_last, sync_batchnorm=True).move("student", student, is_network=True)
    assert list(student.state_dict()) == names
    return [type(module) for module in student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def test_sync_batchnorm_replaces_every_batchnorm_of_several_processes():
    several, one = placed(num_processes=2), placed(num_processes=1)
    assert several and all(issubclass(kind, nn.SyncBatchNorm) for kind in several)
    assert len(one) == len(several) and not any(issubclass(kind, nn.SyncBatchNorm) for kind in one)


# Teachers on another device


def test_frozen_teachers_go_where_they_are_told_and_averages_stay_with_the_student():
    panel = nn.ModuleList([Teacher(tiny_vit(5)), EMATeacher(tiny_vit(3))])
    place_teachers(panel, torch.device("cpu"), torch.device("meta"))
    devices = [{x.device.type for x in (*teacher.parameters(), *teacher.buffers())} for teacher in panel]
    assert devices == [{"meta"}, {"cpu"}]
    panel = nn.ModuleList([Teacher(tiny_vit(5)), EMATeacher(tiny_vit(3))])
    place_teachers(panel, torch.device("meta"))
    assert {x.device.type for x in panel.parameters()} == {"meta"}


def test_a_teacher_answers_and_passes_gradients_as_its_classifier_does():
    classifier = tiny_vit(5).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    answers, gradients = [], []
    for model in (classifier, place_teachers(nn.ModuleList([Teacher(classifier)]), "cpu", "cpu")[0]):
        answers.append(model(images))
        gradients.append(torch.autograd.grad(answers[-1].square().sum(), images)[0])
    assert torch.equal(*answers) and torch.equal(*gradients) and gradients[0].abs().max() > 0


def test_images_cross_to_a_teacher_in_the_hosts_memory_and_answers_come_back():
    """Shapes and devices alone: the tensors have no content, so no GPU is needed."""
    teacher = Teacher(tiny_vit(5))
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.rand(2, 3, 32, 32, device="cuda")
        logits = teacher(images)
    assert logits.device.type == "cuda" and logits.shape == (2, 5)
    assert {x.device.type for x in (*teacher.parameters(), *teacher.buffers())} == {"cpu"}
