"""Mixed, erased and weighted images in the loop: whose turns have them, and that parts and resumed runs are the whole.

tests/objectives/test_in_the_trainer.py has the same for AIT and mutual learning, also in two processes.
"""

import pytest
import torch
from accelerate import Accelerator

from hf_transinv.augment.teach_augmentation import TeachAugmentation
from hf_transinv.config import MixingConfig, TrainConfig
from hf_transinv.data.mixing import Mixing
from hf_transinv.data.transforms import CropFlip
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.teachaugment import TeachAugment, TeachAugmentConfig
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from tests.tiny_run import resident_feed, tensors_of, tiny_trainer, tiny_vit

WEIGHTS = torch.tensor([0.5, 1.0, 2.0])
EVERYTHING = MixingConfig(mixup=0.4, cutmix=1.0, random_erasing=0.5)


def mixing(config=EVERYTHING, weights=WEIGHTS):
    return Mixing(config, 3, weights)


def supervised_trainer(folder, objective=None, mixed=None, **train):
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(**{"max_steps": 4, "batch_size": 8, "learning_rate": 0.05, "logging_steps": 1} | train)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    objective = objective or Supervised(tiny_vit())
    feeds = {"student": resident_feed(8, 0, accelerator)}
    return Trainer(
        accelerator, objective, TrainerSetup(feeds, CropFlip(), config, 4, 5.0, folder, "tiny", mixing=mixed)
    )


def recorded(trainer, turns):
    """Plays so many turns; each player with the batch that it was given, in order."""
    seen, loss = [], trainer.objective.loss

    def record(player, nets, batch, draws):
        seen.append((player, batch))
        return loss(player, nets, batch, draws)

    trainer.objective.loss = record
    for _ in range(turns):
        trainer.take_turn()
    return seen


def test_the_students_images_are_mixed_and_the_augmentations_are_not(tmp_path):
    seen = recorded(tiny_trainer(tmp_path, mixing=mixing()), 6)
    students, augmentations = ([batch for who, batch in seen if who == name] for name in ("student", "augmentation"))
    assert (len(students), len(augmentations)) == (4, 2)
    for batch in students:
        assert batch.labels.shape == (8, 3) and batch.labels.sum(1).allclose(torch.ones(8))
        assert torch.equal(batch.class_weights, WEIGHTS)
    assert any(((batch.labels > 0).sum(1) == 2).any() for batch in students)
    for batch in augmentations:
        assert batch.labels.dtype == torch.int64 and batch.class_weights is None
        levels = batch.images * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)  # neither blended nor filled
    assert torch.equal(augmentations[0].labels, next_labels())


def next_labels():
    """Those of the first batch of the augmentation's feed."""
    return resident_feed(8, 1, Accelerator(cpu=True)).next_batch()[1]


def test_a_shared_batch_is_mixed_for_the_student_alone(tmp_path):
    """TeachAugment's augmentation may play on the student's own batch."""
    torch.manual_seed(0)
    student = tiny_vit()
    augmentation = TeachAugmentation(3, [0.5] * 3, [0.25] * 3)
    config = TeachAugmentConfig(teach_inner_steps=1, teach_share_batch=True)
    method = TeachAugment(Supervised(student), augmentation, EMATeacher(student), config, 5, 4)
    trainer = supervised_trainer(tmp_path, method, mixing(MixingConfig(random_erasing=1.0), None))
    (first, own), (second, erased) = recorded(trainer, 1)
    assert (first, second) == ("augmentation", "student")
    assert 0 < (own.images != erased.images).any(1).float().mean() < 1 / 2


def test_two_micro_batches_are_one_batch_under_a_learned_augmentation(tmp_path):
    ends = []
    for pieces in (1, 2):
        trainer = tiny_trainer(tmp_path / str(pieces), gradient_accumulation_steps=pieces, mixing=mixing())
        for group in trainer.optimizers["augmentation"].param_groups:
            group["eps"] = 1e-3  # AdamW's first steps are the gradient's sign, also of a rounding error
        for _ in range(6):
            trainer.take_turn()
        ends.append(tensors_of(trainer))
    assert max((ends[0][name].float() - ends[1][name].float()).abs().max() for name in ends[0]) < 2e-6


def test_a_resumed_run_goes_on_to_the_bit(tmp_path):
    """Interrupted in the middle of a cycle of two student turns."""
    options = {"max_steps": 6, "save_steps": 3, "save_total_limit": 9}
    whole = tiny_trainer(tmp_path, mixing=mixing(), **options)
    whole.train()
    resumed = tiny_trainer(tmp_path, mixing=mixing(), **options)
    resumed.resume(tmp_path / "checkpoints" / "step_00000003")
    resumed.train()
    one, other = tensors_of(whole), tensors_of(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(whole.generator.get_state(), resumed.generator.get_state())


@pytest.mark.parametrize("mixed", [None, mixing(MixingConfig(class_weights="balanced"))])
def test_without_it_a_turn_draws_what_it_drew_before(tmp_path, mixed):
    """Crops, then what the objective draws."""
    trainer = supervised_trainer(tmp_path, mixed=mixed)
    trainer.take_turn()
    expected = torch.Generator().manual_seed(0)
    CropFlip().draw(8, (32, 32), expected)
    trainer.objective.draw("student", (8, 3, 32, 32), expected)
    assert torch.equal(trainer.generator.get_state(), expected.get_state())


def test_weights_of_classes_change_the_loss_as_torch_has_it(tmp_path):
    """The mean over the images of w_y times the cross-entropy."""
    trainer = supervised_trainer(tmp_path, mixed=mixing(MixingConfig(class_weights="balanced")))
    network = trainer.objective.players["student"]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    ((_, batch),) = recorded(trainer, 1)
    network.load_state_dict(weights)
    with torch.no_grad():
        logits = network(batch.images)
    labels = batch.labels
    expected = torch.nn.functional.cross_entropy(logits, labels, WEIGHTS) * WEIGHTS[labels].mean()
    torch.testing.assert_close(trainer.losses.values["student/total"][0], expected)
