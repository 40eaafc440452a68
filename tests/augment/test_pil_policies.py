"""The policies made of PIL's operations: what is drawn, how often, how strong, and that it is what an image gets."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from timm.data.auto_augment import LEVEL_TO_ARG
from torchvision.transforms import autoaugment as torchvision_policies

from hf_transinv.augment.pil_sorting import Operation
from hf_transinv.augment.policies import augmix, autoaugment, spaces
from hf_transinv.augment.policies.augmix import AugMix
from hf_transinv.augment.policies.autoaugment import AutoAugment
from hf_transinv.augment.policies.cutout import Cutout
from hf_transinv.augment.policies.randaugment import RandAugment
from hf_transinv.augment.policies.spaces import MEAN_COLOR, PAPER, RANDAUGMENT_SPACES, WIDE, tabulate_strengths
from hf_transinv.augment.policies.strong import StrongAugment
from hf_transinv.augment.policies.trivialaugment import TrivialAugment
from hf_transinv.errors import InputError
from tests.oracles import augmix as slow_augmix
from tests.oracles import pil_ops

MANY = (20_000, 3, 32, 32)
SIGNED = [Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.ROTATE]
POLICIES = [
    RandAugment(),
    RandAugment(3, 9, "torchvision"),
    RandAugment(2, 30, "timm"),
    AutoAugment("cifar10"),
    AutoAugment("imagenet"),
    TrivialAugment(),
    StrongAugment(5),
    AugMix(),
    Cutout(),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(batch=64, height=32, width=32):
    return torch.randint(256, (batch, 3, height, width), generator=seeded()).float().div_(255)


def array(image):
    """Image [3, H, W] in [0, 1] -> uint8 [H, W, 3]."""
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def is_binomial(count, trials, probability):
    """Within the bounds that a fair draw leaves once in a million."""
    low, high = binom.ppf([5e-7, 1 - 5e-7], trials, probability)
    return low <= int(count) <= high


def are_uniform(values, known):
    return sum(int((values == value).sum()) for value in known) == values.numel() and all(
        is_binomial((values == value).sum(), values.numel(), 1 / len(known)) for value in known
    )


def by_pil(image, operation, parameter, canvas):
    """The operations of one image, one after another, by PIL."""
    for kind, value in zip(operation.tolist(), parameter.tolist(), strict=True):
        name = Operation(kind).name.lower()
        image = pil_ops.apply(image, name, value, canvas.interpolation, canvas.fill)
    return image


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
class TestEveryPolicy:
    def test_parts_equal_the_whole_and_replay(self, policy):
        images = pictures()
        kept, draws = images.clone(), policy.draw(images.shape, seeded())
        whole = policy(images, draws)
        parts = [policy(images[a:b], draws[a:b]) for a, b in ((0, 1), (1, 40), (40, 64))]
        assert torch.equal(torch.cat(parts), whole) and torch.equal(images, kept)
        assert torch.equal(policy(images, policy.draw(images.shape, seeded())), whole)

    def test_shape_range_and_no_square_needed(self, policy):
        images = pictures(48, 24, 40)
        result = policy(images, policy.draw(images.shape, seeded()))
        assert result.shape == images.shape and result.dtype == images.dtype
        assert result.min() >= 0 and result.max() <= 1

    def test_each_image_has_its_own_draw(self, policy):
        images = pictures(1).expand(64, -1, -1, -1)
        different = policy(images, policy.draw(images.shape, seeded())).flatten(1).unique(dim=0)
        assert len(different) > 15

    def test_has_a_citation(self, policy):
        assert policy.citation.startswith("@") and policy.citation.count("{") == policy.citation.count("}")


@pytest.mark.parametrize("policy", [p for p in POLICIES[:6]], ids=lambda policy: policy.name)
def test_images_get_what_was_drawn(policy):
    images = pictures()
    draws = policy.draw(images.shape, seeded())
    result = policy(images, draws)
    for b, image in enumerate(images):
        operation, parameter = draws.operation[b], draws.parameter[b].clone()
        if (operation == Operation.POSTERIZE).any() and (parameter[operation == Operation.POSTERIZE] < 1).any():
            continue  # PIL refuses to keep no bit
        expected = by_pil(array(image), operation, parameter, policy.canvas)
        assert np.array_equal(array(result[b]), expected), operation


def strengths_of(space, count, height=32, width=32):
    """{operation: (rest, [offset at each strength], whether it is signed)} as tabulated."""
    table = tabulate_strengths(space, tuple(index / (count - 1) for index in range(count)), height, width)
    rows = zip(table.operation, table.rest, table.offset, table.is_signed, strict=True)
    return {Operation(int(o)): (float(rest), offset.tolist(), bool(signed)) for o, rest, offset, signed in rows}


@pytest.mark.parametrize(
    ("space", "published", "count"),
    [
        (spaces.TORCHVISION, torchvision_policies.RandAugment()._augmentation_space(31, (40, 32)), 31),
        (WIDE, torchvision_policies.TrivialAugmentWide()._augmentation_space(31), 31),
    ],
    ids=["randaugment", "trivialaugment"],
)
def test_strengths_are_torchvisions(space, published, count):
    ours = {name.name.replace("_", "").lower(): value for name, value in strengths_of(space, count, 40, 32).items()}
    assert set(ours) == {name.lower() for name in published}
    for name, (magnitudes, is_signed) in published.items():
        rest, offset, signed = ours[name.lower()]
        expected = magnitudes.double().expand(count)
        # Single precision puts 16 pixels at 15.999999 there, which torchvision truncates.
        expected = (expected + 2e-5).trunc() if "Translate" in name else expected
        assert signed == is_signed and rest == (name in ("Brightness", "Color", "Contrast", "Sharpness"))
        np.testing.assert_allclose(offset, expected, atol=2e-5)


def test_strengths_are_timms():
    for operation, (rest, offset, signed) in strengths_of(spaces.TIMM, 31).items():
        name = "".join(part.title() for part in operation.name.split("_")).replace("Autocontrast", "AutoContrast")
        name = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}.get(name, name)
        name = name + "Increasing" if name + "Increasing" in LEVEL_TO_ARG else name
        for index, value in enumerate(offset):
            level_to_arg = LEVEL_TO_ARG[name]
            expected = level_to_arg(index / 3, {}) if level_to_arg else 0.0
            expected = expected[0] if isinstance(expected, tuple) else expected
            if "Translate" in name:
                expected = math.copysign(int(abs(expected) * 32 + 1e-9), expected)
            known = {rest + value, rest - value} if signed else {rest + value}
            assert any(expected == pytest.approx(each) for each in known), name


def test_strengths_are_the_papers():
    """The authors' CIFAR code, parameter by parameter: level M of 30, 32 pixels."""
    ours = strengths_of(PAPER, 31)
    for m in range(31):
        expected = {
            Operation.SHEAR_X: m * 0.3 / 30,
            Operation.TRANSLATE_Y: m * 10 // 30,
            Operation.ROTATE: m,
            Operation.COLOR: m * 1.8 / 30 + 0.1,
            Operation.POSTERIZE: 8 - m * 4 // 30,
            Operation.SOLARIZE: 256 - m * 256 // 30,
        }
        assert {name: ours[name][1][m] for name in expected} == pytest.approx(expected)
    assert {name for name, (_, _, signed) in ours.items() if signed} == set(SIGNED) and len(ours) == 14


class TestRandAugment:
    def test_operations_and_signs_are_fair(self):
        operations = RandAugment(2, 14).draw(MANY, seeded())
        for step in range(2):
            assert are_uniform(operations.operation[:, step], [each.operation for each in PAPER])
        first, second = (operations.operation[:, step] == Operation.ROTATE for step in range(2))
        assert is_binomial((first & second).sum(), MANY[0], 1 / 14**2)
        for operation in SIGNED:
            values = operations.parameter[operations.operation == operation]
            assert len(values.abs().unique()) == 1 and is_binomial((values < 0).sum(), len(values), 0.5)

    def test_zero_is_the_identity(self):
        """In torchvision's space; in the paper's an enhancement is neutral in the middle."""
        images, policy = pictures(), RandAugment(2, 0, "torchvision")
        draws = policy.draw(images.shape, seeded())
        stretched = (draws.operation == Operation.AUTOCONTRAST) | (draws.operation == Operation.EQUALIZE)
        still = ~stretched.any(1) & ~(draws.operation == Operation.SOLARIZE).any(1)
        assert still.sum() > 20
        assert torch.equal(policy(images, draws)[still], images[still])

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"num_ops": 0}, "N"),
            ({"magnitude": 31}, "M"),
            ({"space": "kornia"}, "kornia"),
        ],
    )
    def test_errors(self, arguments, said):
        with pytest.raises(InputError, match=said):
            RandAugment(**arguments)

    def test_spaces_are_named(self):
        assert set(RANDAUGMENT_SPACES) == {"paper", "torchvision", "timm"}


class TestAutoAugment:
    @pytest.mark.parametrize("name", ["cifar10", "imagenet"])
    def test_sub_policies_are_the_published(self, name):
        published = torchvision_policies.AutoAugment(torchvision_policies.AutoAugmentPolicy(name)).policies
        choice, probability, level = autoaugment.parse_policy(autoaugment.POLICIES[name])
        assert len(published) == len(choice) == 25
        for line, steps in enumerate(published):
            for step, (operation, share, magnitude) in enumerate(steps):
                ours = autoaugment.SPACE[int(choice[line, step])].operation
                assert ours.name.replace("_", "").lower() == operation.lower()
                assert float(probability[line, step]) == pytest.approx(share)
                assert int(level[line, step]) == (magnitude or 0)

    def test_shares_are_as_published(self):
        draws = AutoAugment("imagenet").draw(MANY, seeded())
        policies = torchvision_policies.AutoAugment(torchvision_policies.AutoAugmentPolicy.IMAGENET).policies
        for operation, name in ((Operation.EQUALIZE, "Equalize"), (Operation.ROTATE, "Rotate")):
            for step in range(2):
                share = sum(steps[step][1] for steps in policies if steps[step][0] == name) / 25
                assert is_binomial((draws.operation[:, step] == operation).sum(), MANY[0], share)
        turned = draws.parameter[draws.operation == Operation.ROTATE]
        assert set(turned.abs().round(decimals=6).tolist()) == {9, 24, 27}
        assert is_binomial((turned < 0).sum(), len(turned), 0.5)

    def test_errors(self):
        with pytest.raises(InputError, match="svhn"):
            AutoAugment("svhn")


def test_trivialaugment_is_uniform_over_operations_and_strengths():
    draws = TrivialAugment().draw(MANY, seeded())
    assert draws.operation.shape == (MANY[0], 1)
    assert are_uniform(draws.operation, [each.operation for each in WIDE])
    turned = draws.parameter[draws.operation == Operation.ROTATE]
    assert are_uniform(turned.abs().div(4.5).round(), range(31))
    assert is_binomial((turned < 0).sum(), len(turned), 0.5 * 30 / 31)


class TestStrong:
    def test_draws(self):
        draws = StrongAugment(3).draw(MANY, seeded())
        kinds = [*SIGNED[:4], Operation.IDENTITY]
        operation, parameter = draws.operations.operation, draws.operations.parameter
        assert all(are_uniform(operation[:, step], kinds) for step in range(2))
        for kind, size in zip(kinds[:4], (math.tan(math.radians(27)),) * 2 + (10, 10), strict=True):
            values = parameter[operation == kind]
            assert torch.allclose(values.abs(), torch.tensor(size, dtype=torch.float64))
            assert is_binomial((values < 0).sum(), len(values), 0.5)
        cut = operation == Operation.IDENTITY
        top, left, bottom, right = draws.boxes.unbind(2)
        assert (draws.boxes[~cut] == 0).all() and (bottom - top)[cut].eq(10).all() and (right - left)[cut].eq(10).all()
        assert are_uniform(top[cut], range(23)) and are_uniform(left[cut], range(23))

    def test_images_get_what_was_drawn(self):
        policy, images = StrongAugment(3), pictures()
        draws = policy.draw(images.shape, seeded())
        result = policy(images, draws)
        for b, image in enumerate(images):
            expected = array(image)
            for step in range(2):
                operations = draws.operations[b : b + 1]
                this = slice(step, step + 1)
                expected = by_pil(
                    expected, operations.operation[0, this], operations.parameter[0, this], policy.canvas
                )
                expected = pil_ops.cutout(expected, *draws.boxes[b, step].tolist(), policy.canvas.fill)
            assert np.array_equal(array(result[b]), expected)

    def test_zero_is_the_identity_and_ten_destroys(self):
        images = pictures(64, 24, 40)
        still = StrongAugment(0)
        assert torch.equal(still(images, still.draw(images.shape, seeded())), images)
        gone = StrongAugment(10)
        fill = torch.tensor(MEAN_COLOR).view(1, 3, 1, 1).expand_as(images) / 255
        assert torch.equal(gone(images, gone.draw(images.shape, seeded())), fill)

    def test_errors(self):
        with pytest.raises(InputError, match="11"):
            StrongAugment(11)


class TestCutout:
    def test_images_get_what_was_drawn(self):
        policy, images = Cutout(16), pictures()
        draws = policy.draw(images.shape, seeded())
        for image, result, box in zip(images, policy(images, draws), draws, strict=True):
            assert np.array_equal(array(result), pil_ops.cutout(array(image), *box.tolist(), MEAN_COLOR))

    def test_centres_are_uniform_and_sides_as_asked(self):
        top, left, bottom, right = Cutout(8).draw(MANY, seeded()).unbind(1)
        assert are_uniform(top + 4, range(32)) and are_uniform(left + 4, range(32))
        assert (bottom - top == 8).all() and (right - left == 8).all()

    def test_none_is_the_identity(self):
        images = pictures()
        assert torch.equal(Cutout(0)(images, Cutout(0).draw(images.shape, seeded())), images)

    @pytest.mark.parametrize("size", [-2, 7])
    def test_errors(self, size):
        with pytest.raises(InputError, match=str(size)):
            Cutout(size)


class TestAugMix:
    def test_is_the_definition(self):
        policy, images = AugMix(), pictures(96)
        draws = policy.draw(images.shape, seeded())
        result = policy(images, draws)
        for b, image in enumerate(images):
            chains = [
                [(Operation(int(o)).name.lower(), float(p)) for o, p in zip(kinds, values, strict=True)]
                for kinds, values in zip(draws.operation[b], draws.parameter[b], strict=True)
            ]
            expected = slow_augmix.mixture(array(image), chains, draws.weights[b].tolist(), float(draws.share[b]))
            expected = torch.from_numpy(expected).permute(2, 0, 1).float()
            torch.testing.assert_close(result[b], expected, rtol=0, atol=1e-6)

    def test_chains(self):
        draws = AugMix(3).draw(MANY, seeded())
        depth = (draws.operation != Operation.IDENTITY).sum(2)
        assert are_uniform(depth, (1, 2, 3))
        assert (draws.operation[..., 0] != Operation.IDENTITY).all()
        assert are_uniform(draws.operation[..., 0], augmix.OPERATIONS) and len(augmix.OPERATIONS) == 9
        corrupting = {Operation.BRIGHTNESS, Operation.CONTRAST, Operation.COLOR, Operation.SHARPNESS}
        assert not corrupting & set(augmix.OPERATIONS)

    def test_levels(self):
        """With l ~ U(0.1, 3): int(0.4 l) is 0 up to l = 2.5; int(3 l) is 0 up to l = 1/3; int(32 / 30 l) is 0 to 3."""
        draws = AugMix(3).draw(MANY, seeded())
        values = {kind: draws.parameter[draws.operation == kind] for kind in augmix.OPERATIONS}
        bits, degrees = values[Operation.POSTERIZE], values[Operation.ROTATE]
        assert set(bits.tolist()) == {3, 4} and is_binomial((bits == 3).sum(), len(bits), 0.5 / 2.9)
        assert set(degrees.tolist()) == set(range(-8, 9))
        assert is_binomial((degrees == 0).sum(), len(degrees), (1 / 3 - 0.1) / 2.9)
        assert is_binomial((degrees < 0).sum(), len(degrees), 0.5 * (1 - (1 / 3 - 0.1) / 2.9))
        assert set(values[Operation.TRANSLATE_X].tolist()) == set(range(-3, 4))
        assert set(values[Operation.SOLARIZE].tolist()) == set(range(180, 255))
        shears = values[Operation.SHEAR_Y].abs()
        assert shears.min() >= 0.003 and shears.max() <= 0.09

    def test_weights(self):
        """Dirichlet(1, 1, 1): each weight is Beta(1, 2), P(w < t) = 1 - (1 - t)^2; the share is uniform."""
        draws = AugMix().draw(MANY, seeded())
        torch.testing.assert_close(draws.weights.sum(1), torch.ones(MANY[0]))
        for t in (0.05, 0.3, 0.7):
            for chain in range(3):
                assert is_binomial((draws.weights[:, chain] < t).sum(), MANY[0], 1 - (1 - t) ** 2)
            assert is_binomial((draws.share < t).sum(), MANY[0], t)
        assert len(draws.share.unique()) > 0.99 * MANY[0] and len(draws.weights[:, 0].unique()) > 0.99 * MANY[0]

    def test_errors(self):
        with pytest.raises(InputError, match="11"):
            AugMix(11)
