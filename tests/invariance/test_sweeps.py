"""What a model is invariant to, on models whose answers can be worked out by hand; and the widest ranges found."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.errors import InputError
from hf_transinv.invariance.sweeps import (
    Sweep,
    beyond,
    clean_answers,
    corruption_sweeps,
    crossing,
    log_odds,
    mean_agreement,
    measure_sweep,
    primitive_sweeps,
    ranking,
    summarise,
)
from hf_transinv.invariance.tolerated_range import (
    ToleratedRangeConfig,
    _largest_share,
    differential_entropy,
    find_tolerated_range,
)
from hf_transinv.models import Teacher
from hf_transinv.models.classifier import Classifier
from tests.objectives.tiny import teacher
from tests.oracles.invariance import kl_and_agreement

SIZE = 16
PRIMITIVES = {sweep.name: sweep for sweep in primitive_sweeps("reflection")}


class Mean(nn.Module):
    """Mean colour -> logits by a linear map."""

    def __init__(self, weight, bias):
        super().__init__()
        self.head = nn.Linear(3, len(bias))
        with torch.no_grad():
            self.head.weight.copy_(torch.as_tensor(weight))
            self.head.bias.copy_(torch.as_tensor(bias))

    def forward(self, images):
        return self.head(images.mean((2, 3)))


def by_mean(weight, bias):
    classifier = Classifier(
        Mean(weight, bias), num_classes=len(bias), mean=(0, 0, 0), std=(1, 1, 1), input_size=(SIZE, SIZE)
    )
    return Teacher(classifier, "mean")


def dark_or_bright():
    """Class 1 where the mean brightness is above 1/2."""
    return by_mean([[0.0, 0.0, 0.0], [20 / 3, 20 / 3, 20 / 3]], [10.0, 0.0])


def textured(means):
    """uint8 images with these mean levels of 255: a chessboard of the level +- 20."""
    board = 40 * ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2) - 20
    return torch.stack([(board + mean).expand(3, SIZE, SIZE) for mean in means]).to(torch.uint8)


def measured(model, images, sweep, **options):
    (curve,) = measure_sweep([model], [clean_answers(model, images, 7)], images, sweep, seed=0, **options)
    return curve


def test_brightness_crosses_where_the_mean_says_so():
    images = textured([98] * 10 + [40] * 10)  # half of them 29.5 levels below the boundary, the rest far below
    curve = measured(dark_or_bright(), images, PRIMITIVES["brighter"])
    # 98/255 + s > 1/2 from s = 0.1157 on, 40/255 + s from s = 0.343 on; strengths are tenths.
    assert curve.agreement == (1.0, 0.5, 0.5, 0.0, 0.0)
    assert curve.tolerated_up_to == pytest.approx(0.1 + 0.1 * 0.05 / 0.5)
    assert curve.mean_agreement == pytest.approx((0.1 + 0.075 + 0.05 + 0.025) / 0.5)
    assert measured(dark_or_bright(), images, PRIMITIVES["darker"]).tolerated_up_to is None


def test_contrast_about_the_mean_leaves_a_model_of_the_mean_unmoved():
    (contrast,) = corruption_sweeps(["contrast"])
    curve = measured(dark_or_bright(), textured([98, 40, 160, 200]), contrast)
    assert curve.agreement == (1.0,) * 5
    assert curve.tolerated_up_to is None
    assert max(curve.kl) < 1e-3  # the corruption rounds to 8 bits


def test_warps_and_blur_leave_a_model_of_the_mean_unmoved_on_plain_colours():
    images = torch.tensor([30, 90, 140, 220], dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    for name in ("rotation", "shift", "zoom_out", "zoom_in", "shear", "blur"):
        curve = measured(dark_or_bright(), images, PRIMITIVES[name])
        assert max(curve.kl) < 1e-6, name
        assert curve.score == pytest.approx(math.log((4 * len(curve.kl) + 0.5) / 0.5)), name


@pytest.mark.parametrize("name", ["rotation", "noise", "contrast_lower", "gaussian_noise", "elastic_transform"])
def test_kl_and_agreement_are_those_of_a_slow_loop(name):
    model = teacher(4, SIZE)
    images = torch.randint(256, (11, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    sweep = corruption_sweeps([name])[0] if name in CORRUPTIONS else PRIMITIVES[name]
    curve = measured(model, images, sweep, batch_size=4)
    clean = model(images.float() / 255).tolist()
    for place, strength in enumerate(sweep.strengths):
        parts = [sweep.apply(part.float() / 255, strength, 0, index) for index, part in enumerate(images.split(4))]
        kl, agreement = kl_and_agreement(clean, model(torch.cat(parts)).tolist())
        assert curve.kl[place] == pytest.approx(kl, rel=1e-4, abs=1e-6)
        assert curve.agreement[place] == pytest.approx(agreement)


def test_all_models_see_the_same_images_and_none_moves():
    model, images = teacher(4, SIZE), textured([20, 60, 120, 200])
    before = copy.deepcopy(model.state_dict())
    clean = clean_answers(model, images, 3)
    first, second = measure_sweep([model, model], [clean, clean], images, PRIMITIVES["noise"], seed=1)
    assert first == second == measure_sweep([model], [clean], images, PRIMITIVES["noise"], seed=1)[0]
    assert first != measure_sweep([model], [clean], images, PRIMITIVES["noise"], seed=2)[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_physical_sweeps_do_what_their_units_say():
    image = torch.zeros(1, 3, SIZE, SIZE)
    image[..., SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1] = 1  # a square of 2 px in the middle
    zeros = {sweep.name: sweep for sweep in primitive_sweeps()}
    twice = zeros["zoom_in"].apply(image, 2.0, 0, 0)
    assert twice.sum().item() == pytest.approx(4 * image.sum().item(), rel=1e-4)
    where = torch.arange(SIZE) + 0.5
    for share in (6.25, 12.5):
        shifted = zeros["shift"].apply(image, share, 0, 0)[0, 0]
        total = shifted.sum()
        moved = torch.stack([(shifted.sum(dim) * where).sum() / total for dim in (0, 1)]) - SIZE / 2
        assert moved.norm().item() == pytest.approx(share / 100 * SIZE, abs=1e-4)
    quarter = zeros["rotation"].apply(torch.rot90(twice, 1, (2, 3)), 90.0, 0, 0)
    torch.testing.assert_close(quarter, twice, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("rest", "strengths", "agreement", "expected"),
    [
        (0, (1, 2), (0.9, 0.5), 0.5),
        (0, (1, 2), (0.95, 0.85), 1.0),
        (0, (1, 2), (0.99, 0.91), 1.5),
        (0, (1, 2), (1.0, 0.95), None),
        (0, (1, 2, 3), (0.85, 1.0, 0.0), 1 / 3),
        (1, (0.8, 0.6), (1.0, 0.9), 0.7),
    ],
)
def test_crossing_by_hand(rest, strengths, agreement, expected):
    found = crossing(rest, strengths, agreement)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_mean_agreement_and_score_by_hand():
    uneven = Sweep("s", "s", "", False, 1, (0.9, 0.5), "")
    assert mean_agreement(uneven, (0.8, 0.4)) == pytest.approx((0.1 * 0.9 + 0.4 * 0.6) / 0.5)
    corruption = Sweep("c", "c", "", True, 0, (1, 2), "")
    kept = torch.arange(10) < torch.tensor([[9], [7]])
    assert summarise(corruption, (0, 0), kept).score == pytest.approx(math.log(16.5 / 4.5))
    assert summarise(corruption, (0, 0), kept).kept == (1.0,) * 7 + (0.5, 0.5, 0.0)
    curve = summarise(uneven, (0, 0), torch.tensor([[True, False, True], [True, False, False]]))
    assert curve.kept == pytest.approx((1, 0.1, 0.6)), "half of the step of 0.1, then of that of 0.4"
    assert sum(curve.kept) / 3 == pytest.approx(curve.mean_agreement)
    assert log_odds(1.0, 10) == -log_odds(0.0, 10) == pytest.approx(math.log(21))


def test_ranking_beyond_a_reference_sees_what_both_tolerate_well():
    sweeps = corruption_sweeps(["contrast", "brightness", "pixelate"])

    def curves(*agreements):
        kept = [(torch.arange(1000) < round(1000 * agreement)).expand(5, -1) for agreement in agreements]
        return {s.name: summarise(s, (0,) * 5, own) for s, own in zip(sweeps, kept, strict=True)}

    own, plain = curves(0.99, 0.98, 0.50), curves(0.94, 0.97, 0.45)
    scores = beyond(own, plain)
    assert ranking(scores, sweeps, True) == ["contrast", "brightness", "pixelate"]
    assert scores["contrast"] == pytest.approx(math.log(0.99 / 0.01) - math.log(0.94 / 0.06), abs=0.02)
    assert ranking(beyond(own, None), sweeps, True) == ["contrast", "brightness", "pixelate"]
    assert set(beyond(plain, plain).values()) == {0.0}


def test_unknown_corruption_is_refused():
    with pytest.raises(InputError, match=r"nois.*known are gaussian_noise"):
        corruption_sweeps(["nois"])


# The widest range


@pytest.mark.parametrize("width", [1.0, 0.2])
def test_entropy_of_a_uniform_and_of_a_normal_distribution(width):
    generator = torch.Generator().manual_seed(0)
    uniform = width * torch.rand(4096, 1, generator=generator)
    normal = width * torch.randn(4096, 1, generator=generator)
    found = differential_entropy(torch.cat([uniform, normal], dim=1))
    expected = [math.log(width), math.log(width) + 0.5 * math.log(2 * math.pi * math.e)]
    assert found.tolist() == pytest.approx(expected, abs=0.05)


def test_entropy_grows_by_the_logarithm_of_a_scale():
    samples = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    entropy = differential_entropy(samples * scale)
    (slope,) = torch.autograd.grad(entropy.sum(), scale)
    assert slope.item() == pytest.approx(1.0)  # d ln(scale) of two columns
    torch.testing.assert_close(entropy, differential_entropy(samples) + math.log(2))


def test_largest_share_by_bisection():
    assert _largest_share(lambda c: 0.1 * c, 0.1) == (1.0, 0.1)
    share, kl = _largest_share(lambda c: c, 0.3)
    assert (share, kl) == (9 / 32, 9 / 32)


@pytest.fixture(scope="module")
def colours():
    """A model of the mean colour, sure of its answers, and images of one colour each."""
    generator = torch.Generator().manual_seed(0)
    model = by_mean(60 * torch.randn(4, 3, generator=generator), torch.zeros(4))
    images = torch.randint(60, 200, (64, 3, 1, 1), generator=generator, dtype=torch.uint8).expand(-1, -1, SIZE, SIZE)
    return model, images.contiguous()


QUICK = ToleratedRangeConfig(range_learning_rate=0.02, range_batch_size=40)


def find(colours, turns=150):
    model, images = colours
    clean = clean_answers(model, images, 64)
    config = replace(QUICK, range_turns=turns)
    found = find_tolerated_range(model, images, clean, config, PrimitiveConfig(padding_mode="reflection"), seed=0)
    return found, {one.primitive: one for one in found.ranges}


def test_widest_range_is_full_where_the_model_is_invariant_and_tolerated_elsewhere(colours):
    before = copy.deepcopy(colours[0].state_dict())
    found, ranges = find(colours)
    for name in ("geometric", "gaussian_blur"):
        assert ranges[name].kl < 1e-6
        assert ranges[name].share == 1
        assert ranges[name].width > 0.85, name
    narrow = ranges["contrast_brightness"]
    assert 0 < narrow.kl <= QUICK.tolerance
    assert 0.02 < narrow.width < 0.6
    assert narrow.p < min(ranges["geometric"].p, ranges["gaussian_blur"].p)
    assert found.q > 0.5
    for one in found.ranges:
        for parameter in one.parameters:
            low, middle, high = parameter.quantiles
            assert parameter.low - 1e-4 <= low <= middle <= high <= parameter.high + 1e-4, parameter
    for name, value in colours[0].state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in colours[0].parameters())
    assert find(colours, turns=2)[0] == find(colours, turns=2)[0]
    blur = {parameter.name: parameter for parameter in ranges["gaussian_blur"].parameters}
    assert blur["blur variance at 32 px"].quantiles[2] > 1.5


def test_reach_of_the_physical_parameters(colours):
    model = colours[0], colours[1][:8]
    _, ranges = find(model, turns=1)
    reach = {parameter.name: (parameter.low, parameter.high) for parameter in ranges["geometric"].parameters}
    assert reach["shift down"] == pytest.approx((-12.5, 12.5))
    angle = math.degrees(math.atan2(0.25, 0.75))
    assert reach["rotation"] == pytest.approx((-angle, angle), abs=1e-3)


@pytest.mark.parametrize("field", ["tolerance", "range_learning_rate", "dual_learning_rate", "range_turns"])
def test_config_refuses_what_is_not_positive(field):
    with pytest.raises(InputError, match=field):
        ToleratedRangeConfig(**{field: 0})
