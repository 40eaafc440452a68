"""Every operation is PIL's to the level, at every magnitude in use and beyond, on noise, smooth and edge images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_transinv.augment.pil_geometric import cut_out
from hf_transinv.augment.pil_ops import Canvas, apply_operations, to_images, to_levels
from hf_transinv.augment.pil_sorting import Operation
from hf_transinv.errors import InputError
from tests.oracles import pil_ops

FILL = (125, 3, 250)
FACTORS = (0, 0.1, 0.19, 0.37, 0.5, 0.73, 0.82, 1, 1.09, 1.3, 1.54, 1.9, 2.5)
SHEARS = (0, 0.009, 0.03, 0.1, 0.14, 0.25, 0.3, -0.3, 0.333, 0.5, 0.99, -0.99, 6.3)
SHIFTS = (0, 1, -1, 5, -13, 31, 40)
PARAMETERS = {
    "identity": (0,),
    "invert": (0,),
    "posterize": range(1, 9),
    "solarize": (0, 1, 17.4, 128, 136, 200, 255, 256),
    "solarize_add": (0, 5, 37, 110, 128),
    "brightness": FACTORS,
    "contrast": FACTORS,
    "color": FACTORS,
    "sharpness": FACTORS,
    "autocontrast": (0,),
    "equalize": (0,),
    "shear_x": SHEARS,
    "shear_y": SHEARS,
    "translate_x": SHIFTS,
    "translate_y": SHIFTS,
    "rotate": (*range(-30, 31), 4.5, 13.7, 45, 60, 90, -90, 135, -135, 180),
}
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def pictures(height, width):
    """uint8 [12, 3, H, W]: noise, few levels, smooth, constant, two halves, and a constant channel in noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (12, 3, height, width), generator=generator, dtype=torch.uint8)
    smooth = F.interpolate(torch.rand(4, 3, 5, 5, generator=generator), size=(height, width), mode="bicubic")
    noise[3:5] = noise[3:5] // 16 + 100
    noise[5:9] = (smooth.clamp(0, 1) * 255).byte()
    for place, level in ((0, 0), (1, 255), (2, 77)):
        noise[place] = level
    noise[9, :, :, : width // 2], noise[9, :, :, width // 2 :] = 10, 200
    noise[10, 1] = 60
    return noise


def by_pil(levels, name, parameter, interpolation="nearest"):
    results = [
        pil_ops.apply(image, name, parameter, interpolation, FILL) for image in levels.permute(0, 2, 3, 1).numpy()
    ]
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def by_us(levels, name, parameter, interpolation="nearest"):
    operation = torch.full((len(levels), 1), int(Operation[name.upper()]))
    value = torch.full((len(levels), 1), parameter, dtype=torch.float64)
    return apply_operations(levels, operation, value, Canvas(interpolation, FILL))


@pytest.mark.parametrize("size", [(32, 32), (33, 27), (2, 5)])
@pytest.mark.parametrize("name", PARAMETERS)
def test_is_pil_to_the_level(name, size):
    levels = pictures(*size)
    for parameter in PARAMETERS[name]:
        for interpolation in ("nearest", "bilinear") if name in GEOMETRIC else ("nearest",):
            expected = by_pil(levels, name, parameter, interpolation)
            result = by_us(levels, name, parameter, interpolation)
            assert torch.equal(result, expected), (parameter, interpolation)


def test_every_operation_is_covered():
    assert set(PARAMETERS) == {operation.name.lower() for operation in Operation}


def test_each_image_has_its_own_operations_in_order():
    generator, levels = torch.Generator().manual_seed(1), pictures(16, 16).repeat(10, 1, 1, 1)
    kept = levels.clone()
    operation = torch.randint(len(Operation), (len(levels), 3), generator=generator)
    names = [[Operation(int(kind)).name.lower() for kind in row] for row in operation]
    values = [
        [list(PARAMETERS[name])[(3 * b + 1) % len(PARAMETERS[name])] for name in row] for b, row in enumerate(names)
    ]
    result = apply_operations(levels, operation, torch.tensor(values, dtype=torch.float64), Canvas("bilinear", FILL))
    for b, image in enumerate(levels.permute(0, 2, 3, 1).numpy()):
        for name, value in zip(names[b], values[b], strict=True):
            image = pil_ops.apply(image, name, value, "bilinear", FILL)
        assert torch.equal(result[b], torch.from_numpy(np.array(image)).permute(2, 0, 1)), names[b]
    assert torch.equal(levels, kept)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        *(("posterize", 8), ("solarize", 256), ("solarize_add", 0), ("rotate", 0)),
        *((name, 1) for name in ("brightness", "contrast", "color", "sharpness")),
        *((name, 0) for name in ("shear_x", "shear_y", "translate_x", "translate_y")),
    ],
)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_rest_changes_nothing(name, parameter, interpolation):
    levels = pictures(8, 9)
    assert torch.equal(by_us(levels, name, parameter, interpolation), levels)


def test_hand_computed():
    row = torch.tensor([0, 100, 200, 250], dtype=torch.uint8).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    values = {
        ("invert", 0): [255, 155, 55, 5],
        ("posterize", 2): [0, 64, 192, 192],
        ("posterize", 0): [0, 0, 0, 0],
        ("solarize", 200): [0, 100, 55, 5],
        ("solarize_add", 40): [40, 140, 200, 250],
        ("brightness", 1.5): [0, 150, 255, 255],
        ("contrast", 0): [138, 138, 138, 138],  # the mean is 137.5
        ("autocontrast", 0): [0, 102, 204, 255],
    }
    for (name, parameter), expected in values.items():
        assert by_us(row, name, parameter)[0, 0, 0].tolist() == expected, name
    assert by_us(row, "translate_x", 1)[0, :, 0].t().tolist() == [[100] * 3, [200] * 3, [250] * 3, list(FILL)]


@pytest.mark.parametrize("box", [(2, 3, 6, 5), (-3, -1, 4, 4), (5, 6, 20, 20), (0, 0, 0, 0), (0, 0, 8, 9)])
def test_cut_out(box):
    levels = pictures(8, 9)
    result = cut_out(levels, torch.tensor([box]).expand(len(levels), -1), torch.tensor(FILL, dtype=torch.uint8))
    for image, ours in zip(levels.permute(0, 2, 3, 1).numpy(), result.permute(0, 2, 3, 1).numpy(), strict=True):
        assert np.array_equal(ours, pil_ops.cutout(image, *box, FILL))


def test_large_images_and_shears_that_leave_nothing():
    levels = pictures(224, 224)[5:7]
    assert torch.equal(by_us(levels, "rotate", 17, "bilinear"), by_pil(levels, "rotate", 17, "bilinear"))
    for interpolation in ("nearest", "bilinear"):
        gone = by_us(levels, "shear_y", 448.0, interpolation)
        assert torch.equal(gone, torch.tensor(FILL, dtype=torch.uint8).view(1, 3, 1, 1).expand_as(levels))


def test_levels_survive_the_way_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    images = levels.float().div(255)
    assert torch.equal(to_levels(images), levels) and torch.equal(to_images(levels, images), images)


@pytest.mark.parametrize("arguments", [{"interpolation": "bicubic"}, {"fill": (0, 0, 256)}, {"fill": (0, 0)}])
def test_errors(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        Canvas(**arguments)
