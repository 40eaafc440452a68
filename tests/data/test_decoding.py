"""Every kind of image file becomes the RGB that one sees; broken files are named."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_transinv.data.decoding import BadImageError, decode_image, fit, shrink

_RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def _saved(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _as_array(encoded: bytes) -> np.ndarray:
    image = decode_image(encoded, "row 0")
    assert image.dtype == torch.uint8
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_lossless_rgb_is_pixel_exact(file_format: str, options: dict) -> None:
    np.testing.assert_array_equal(_as_array(_saved(Image.fromarray(_RGB), file_format, **options)), _RGB)


def test_jpeg_equals_pillow() -> None:
    smooth = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    encoded = _saved(Image.fromarray(smooth), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    assert np.abs(_as_array(encoded).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_greyscale_is_repeated(file_format: str) -> None:
    encoded = _saved(Image.fromarray(_RGB[..., 0]), file_format)
    expected = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(_as_array(encoded), np.repeat(expected[..., None], 3, axis=2))


def test_palette_is_looked_up_with_and_without_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    assert _as_array(_saved(image)).tolist() == expected
    assert _as_array(_saved(image, transparency=b"\x00\x80\xff")).tolist() == expected


def test_alpha_is_dropped() -> None:
    rgba = np.concatenate([_RGB, np.full((5, 7, 1), 7, np.uint8)], axis=2)
    np.testing.assert_array_equal(_as_array(_saved(Image.fromarray(rgba))), _RGB)
    np.testing.assert_array_equal(_as_array(_saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)), _RGB)


def test_cmyk_jpeg_becomes_rgb() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK")
    assert np.abs(_as_array(_saved(red, "JPEG", quality=95)).astype(int) - [200, 30, 30]).max() <= 8


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32896], [65535, 256, 51400]], dtype=np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for file_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(_as_array(_saved(Image.fromarray(values), file_format))[..., 1], expected)


@pytest.mark.parametrize(("file_format", "atol"), [("PNG", 0), ("WEBP", 0), ("JPEG", 40)])
def test_exif_rotation_is_applied(file_format: str, atol: int) -> None:
    half = np.zeros((16, 32, 3), np.uint8)
    half[:, :16] = 250
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the image must be turned by 90 degrees clockwise
    options = {"lossless": True} if file_format == "WEBP" else {}
    upright = _as_array(_saved(Image.fromarray(half), file_format, exif=exif, **options))
    assert upright.shape == (32, 16, 3)
    assert np.abs(upright.astype(int) - np.rot90(half, -1)).max() <= atol


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_named(file_format: str, share: float) -> None:
    encoded = _saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)), file_format)
    with pytest.raises(BadImageError, match=r"row 17 of pets.*cannot be decoded"):
        decode_image(encoded[: int(len(encoded) * share)], "row 17 of pets")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_bytes_that_are_no_image_are_named(content: bytes) -> None:
    with pytest.raises(BadImageError, match="row 3"):
        decode_image(content, "row 3")


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(BadImageError, match="floating point"):
        decode_image(_saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "row 0")


def test_paths_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(_saved(Image.fromarray(_RGB)))
    np.testing.assert_array_equal(decode_image(path, "row 0").permute(1, 2, 0).numpy(), _RGB)
    with pytest.raises(BadImageError, match=r"row 9.*cannot be read"):
        decode_image(str(tmp_path / "none.png"), "row 9")


def test_fit_resizes_the_shorter_side_and_cuts_out_the_centre() -> None:
    wide = torch.zeros(3, 8, 24, dtype=torch.uint8)
    wide[:, :, 8:16] = 200
    assert torch.equal(fit(wide, 8), torch.full((3, 8, 8), 200, dtype=torch.uint8))
    assert fit(wide, 4).shape == (3, 4, 4) and fit(wide.mT, 16).shape == (3, 16, 16)
    square = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert fit(square, 8) is square


@pytest.mark.parametrize(("shape", "whole"), [((24, 24), False), ((26, 24), False), ((24, 24), True)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_centre_is_that_of_torchvision(shape: tuple, whole: bool, interpolation: str) -> None:
    from torchvision.transforms.v2 import functional

    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mode = functional.InterpolationMode(interpolation)
    pct, shorter = (1.0, 16) if whole else (0.875, 18)
    resized = functional.resize(image, [shorter], interpolation=mode, antialias=True)
    assert torch.equal(fit(image, 16, pct, interpolation), functional.center_crop(resized, [16, 16]))
    small = image[:, :16, :16]
    assert fit(small, 16, interpolation=interpolation) is small and fit(small, 16, 0.875) is not small


def test_whole_pictures_are_shrunk_and_never_enlarged() -> None:
    image = torch.randint(0, 256, (3, 40, 61), dtype=torch.uint8)
    assert shrink(image, 20).shape == (3, 20, 30) and shrink(image.mT, 20).shape == (3, 30, 20)
    assert shrink(image, 40) is image and shrink(image, 50) is image
    assert shrink(torch.zeros(3, 10, 200, dtype=torch.uint8), 5).shape == (3, 5, 40), "the centre of a long one"


@pytest.mark.parametrize(
    ("enough", "shape"),
    [
        (None, (96, 160)),
        (97, (96, 160)),
        (49, (96, 160)),
        (48, (48, 80)),
        (25, (48, 80)),
        (24, (24, 40)),
        (5, (12, 20)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_jpegs_are_decoded_smaller_where_enough_remains(enough: int | None, shape: tuple, turned: bool) -> None:
    """As Pillow's draft mode does, which leaves at least `enough` pixels; near what a filter makes of the whole."""
    asked: list[tuple[int, int]] = []
    least = None if enough is None else lambda *sides: asked.append(sides) or enough
    coarse = torch.rand(1, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (96, 160), mode="bicubic").clamp(0, 1)[0].mul(255).byte()
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    encoded = _saved(Image.fromarray(smooth.permute(1, 2, 0).numpy()), "JPEG", quality=95, exif=exif)
    image = decode_image(encoded, "row 0", least)
    image = image.rot90(1, (1, 2)) if turned else image
    assert image.shape[1:] == shape
    expected = torch.nn.functional.interpolate(smooth[None].float(), shape, mode="area")[0]
    assert (image.float() - expected).abs().mean() < 2
    again = decode_image(encoded, "row 0", least)
    assert set(asked) == (set() if enough is None else {(96, 160)}), "as the file has it"
    assert torch.equal(again.rot90(1, (1, 2)) if turned else again, image)


def test_no_other_format_is_decoded_smaller() -> None:
    for file_format in ("PNG", "WEBP", "GIF"):
        encoded = _saved(Image.fromarray(np.zeros((64, 64, 3), np.uint8)), file_format)
        assert decode_image(encoded, "row 0", lambda *_: 8).shape == (3, 64, 64)


@pytest.mark.parametrize("turned", [False, True])
def test_a_fault_of_ours_is_no_bad_image(turned: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    encoded = _saved(Image.new("RGB", (64, 64)), "JPEG", exif=exif if turned else b"")

    def enough(height: int, width: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decode_image(encoded, "row 0", enough)


@pytest.fixture
def nothing_said(monkeypatch):
    monkeypatch.setattr("hf_transinv.data.decoding._said", set())


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_that_only_the_first_frame_is_read_is_said_once(file_format, nothing_said, caplog):
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    file = io.BytesIO()
    red.save(file, file_format, save_all=True, append_images=[blue])
    for _ in range(2):
        image = decode_image(file.getvalue(), "row 3")
        assert image[0].float().mean() > 200 > 60 > image[2].float().mean()
    assert [record.message for record in caplog.records] == [
        "row 3: of images with several frames or pages, the first one is read"
    ]


@pytest.mark.parametrize(("largest", "is_said"), [(3000, True), (4095, True), (60000, False)])
def test_that_twelve_bits_come_out_dark_is_said(largest, is_said, nothing_said, caplog):
    pixels = np.full((8, 8), largest, np.uint16)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    image = decode_image(file.getvalue(), "row 5")
    assert image.unique().tolist() == [round(largest * 255 / 65535)]
    assert (
        f"row 5: 16-bit pixels are taken as 0 to 65,535, and none of this image is beyond {largest}" in caplog.text
    ) is (is_said)


def test_ordinary_pictures_are_not_warned_of(nothing_said, caplog):
    for file_format in ("GIF", "TIFF", "PNG", "WEBP", "JPEG"):
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (9, 8, 7)).save(file, file_format)
        decode_image(file.getvalue(), "row 0")
    assert not caplog.records
