"""What every augmentation says it is kin to, and that the runs' records say it."""

import pytest

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.augment.hard_augmenters import AffineWarp, AugmenterConfig, ThinPlateWarp
from hf_transinv.augment.kin import NOISES, kin_of_corruption
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.policies import POLICIES, CorruptionConfig, PolicyConfig, build_policies
from tests.objectives.trained import objective_of
from tests.tiny_run import tiny_trainer

ENHANCED = {"brightness", "contrast", "defocus_blur"}
OF_POLICIES = {
    "cutout": set(),
    "randaugment": ENHANCED,
    "autoaugment": ENHANCED,
    "trivialaugment": ENHANCED,
    "augmix": set(),
    "prime": {"elastic_transform", "defocus_blur", "brightness", "contrast"},
    "strong": set(),
    "fixed_aug": {"brightness", "contrast", "defocus_blur", *NOISES},
    "corruption": {"fog"},
    "pad_crop": set(),
    "grayscale": set(),
    "color_jitter": {"brightness", "contrast"},
}


@pytest.mark.parametrize("name", POLICIES)
def test_kin_of_a_policy(name):
    (policy,) = build_policies([name], PolicyConfig(corruption_policy=CorruptionConfig(("fog",))))
    assert set(policy.kin) == OF_POLICIES[name]
    assert all(reason and reason[0].islower() for reason in policy.kin.values())


def test_autoaugment_for_imagenet_changes_no_brightness():
    (policy,) = build_policies(["autoaugment"], PolicyConfig(autoaugment_policy="imagenet"))
    assert set(policy.kin) == {"contrast", "defocus_blur"}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_kin_to_itself_and_noise_to_noise(name):
    assert set(kin_of_corruption(name)) == ({name, *NOISES} if name in NOISES else {name})


def test_kin_of_learned_augmentations():
    panel = AugmentationPanel(1, AugmentationConfig(("geometric", "gaussian_blur", "snow:3")))
    assert set(panel.kin) == {"defocus_blur", "snow"}
    assert set(AugmentationPanel(1).kin) == {"brightness", "contrast", "defocus_blur", *NOISES}
    assert not AffineWarp(AugmenterConfig()).kin
    assert set(ThinPlateWarp(AugmenterConfig(), (8, 8)).kin) == {"elastic_transform"}


def test_a_method_is_kin_to_what_its_policies_and_its_learned_augmentation_are(tmp_path):
    assert set(tiny_trainer(tmp_path, max_steps=1).objective.kin) == set(AugmentationPanel(1).kin)
    assert set(objective_of("ait").kin) == OF_POLICIES["fixed_aug"] | OF_POLICIES["color_jitter"]
    assert not objective_of("ait_features").kin
