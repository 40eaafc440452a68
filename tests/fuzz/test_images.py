"""Image files: a picture of the right shape, or an error that names the row; never memory that a header asks for."""

import io
import resource
import struct
import zlib

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_transinv.data.decoding import BadImageError, decode_image, fit
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import Source, open_source
from hf_transinv.errors import InputError
from tests.fuzz import damaged_bytes, examples, result_or_error

SIDE = 8


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Small files of many kinds."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "png": encode(rgb, "PNG"),
        "jpeg": encode(rgb, "JPEG"),
        "progressive": encode(rgb, "JPEG", progressive=True),
        "turned": encode(rgb, "JPEG", exif=exif),
        "cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "webp": encode(rgb, "WEBP"),
        "palette": encode(rgb.convert("P"), "PNG", transparency=3),
        "grey and alpha": encode(rgb.convert("LA"), "PNG"),
        "16 bits": encode(Image.fromarray((pixels[..., 0].astype(np.uint16)) * 250), "PNG"),
        "tiff": encode(rgb, "TIFF"),
        "bitmap": encode(rgb, "BMP"),
        "animated": encode(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)] * 3),
        "animated png": encode(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)]),
        "bilevel": encode(rgb.convert("1"), "PNG"),
        "one pixel": encode(rgb.crop((0, 0, 1, 1)), "PNG"),
    }
    return kinds


KINDS = pictures()


@examples(80)
@given(st.sampled_from(sorted(KINDS)).flatmap(lambda kind: damaged_bytes(KINDS[kind])))
def test_damaged_files(content):
    found = result_or_error(lambda: decode_image(content, "row 3"))
    if isinstance(found, InputError):
        assert isinstance(found, BadImageError) and str(found).startswith("row 3: ")
    else:
        assert found.dtype == torch.uint8 and found.ndim == 3 and found.shape[0] == 3 and found.numel() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(kind):
    assert fit(decode_image(KINDS[kind], "row 0"), SIDE).shape == (3, SIDE, SIDE)


def source_of(cells: list[dict | None]) -> Source:
    image = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": image, "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0] * len(cells)}, features)
    return Source(rows, ["a", "b"], len(cells), "here", "train", False)


FILES = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.one_of(st.just(KINDS[kind]), damaged_bytes(KINDS[kind]))
)
CELLS = st.one_of(
    st.builds(lambda content: {"bytes": content, "path": None}, FILES),
    st.sampled_from([None, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}]),
    st.sampled_from(["nowhere.png", "/dev/zero", "x" * 5000, "a\0b", "."]).map(lambda p: {"bytes": None, "path": p}),
)


@examples(20)
@given(st.lists(CELLS, min_size=1, max_size=4), st.sampled_from([None, SIDE]), st.sampled_from(["raise", "skip"]))
def test_whole_splits(cells, image_size, on_bad_image):
    options = {"image_size": image_size, "on_bad_image": on_bad_image, "show_progress": False}
    found = result_or_error(lambda: ResidentSplit.load(source_of(cells), **options))
    if isinstance(found, ResidentSplit):
        assert len(found) + found.num_skipped == len(cells) and found.images.shape[2] == found.images.shape[3]
        assert on_bad_image == "skip" or found.num_skipped == 0


def chunk(kind: bytes, content: bytes) -> bytes:
    """A piece of a PNG, with its length and its sum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, colour: int = 2) -> bytes:
    """A PNG that claims to have this size and holds one row's beginning."""

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose frame claims to have this size."""
    content = KINDS["jpeg"]
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


BOMBS = {
    "png": png_of(2**31 - 1, 2**31 - 1),
    "png that would fit into memory": png_of(40_000, 40_000),
    "grey png": png_of(60_000, 60_000, colour=0),
    "jpeg": jpeg_of(65_500, 65_500),
    "gif": KINDS["animated"][:6] + b"\xff\xff\xff\xff" + KINDS["animated"][10:],
    "bitmap": KINDS["bitmap"][:18] + struct.pack("<ii", 2**30, 2**30) + KINDS["bitmap"][26:],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_header_that_asks_for_memory_is_refused_before_it_is_given(kind):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadImageError, match="row 0"):
        decode_image(BOMBS[kind], "row 0")
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )  # kilobytes; the smallest asks for 3 GB


@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1), (3, 20_000)])
def test_strips_cost_no_more_than_squares(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = decode_image(encode(Image.new("RGB", size, "red"), "PNG"), "row 0")
    assert torch.equal(
        fit(image, 224), torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 224, 224)
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_postscript_is_not_handed_to_an_interpreter():
    program = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(harm) (w) file closefile\nshowpage\n%%EOF\n"
    )
    with pytest.raises(BadImageError):
        decode_image(program, "row 0")


def test_more_memory_than_there_is():
    cells = [{"bytes": KINDS["png"], "path": None}]
    with pytest.raises(InputError, match="more than there is"):
        ResidentSplit.load(source_of(cells), image_size=2**24, show_progress=False)


def test_names_of_class_folders_are_names_only(tmp_path):
    for name in ("a..", "{{ 7 }}", "a b", "<b>", "CON", "--flag"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(KINDS["png"])
    source = open_source(str(tmp_path))
    assert source.label_names == sorted(path.name for path in tmp_path.iterdir()) and source.num_rows == 6


def test_damaged_pixels_of_a_png_do_not_end_the_process():
    """torchvision's decoder dies of them, although all lengths and sums of the file are right."""

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 12, 8, 2, 0, 0, 0))
    damaged = bytearray(zlib.compress(bytes(12 * 31)))
    damaged[len(damaged) // 2] ^= 16
    with pytest.raises(BadImageError, match="row 0"):
        decode_image(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", bytes(damaged)) + chunk(b"IEND", b""), "row 0")
