"""The report: that every number reaches the page, that nothing on it comes from outside, and the command itself."""

import base64
import io
import json
import re
import runpy
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from hf_transinv.augment.magnitudes import ParameterRange
from hf_transinv.formats.markdown import escape
from hf_transinv.invariance.page import page
from hf_transinv.invariance.plots import image_strip, plot_curves
from hf_transinv.invariance.report import (
    Measured,
    Report,
    as_numbers,
    short_names,
    summary_markdown,
    summary_text,
    tolerated_text,
    verdict,
)
from hf_transinv.invariance.sweeps import corruption_sweeps, primitive_sweeps, summarise
from hf_transinv.invariance.tolerated_range import RangeFound, ToleratedRange
from hf_transinv.invariance.verdict import Estimate, agreement_of, difference
from tests.launching import PYTHON, REPOSITORY, succeed, tiny_teachers

RECIPE = REPOSITORY / "recipes" / "invariance.py"
EVIL = "<script>alert(1)</script>|`x`"
SWEEPS = (*corruption_sweeps(["gaussian_noise", "contrast", "pixelate"]), *primitive_sweeps())


def first(agreement, num_strengths):
    """Of 100 images, the first ones keep their class at every strength."""
    return (torch.arange(100) < round(100 * agreement)).expand(num_strengths, -1)


def measured(name, agreements):
    curves = {
        sweep.name: summarise(sweep, (0.2,) * len(sweep.strengths), first(agreement, len(sweep.strengths)))
        for sweep, agreement in zip(SWEEPS, agreements, strict=True)
    }
    parameter = ParameterRange("noise variance", "", 0.0, 0.12, 0.0, (0.01, 0.02, 0.03))
    widest = ToleratedRange(0.75, (RangeFound("gaussian_noise", 0.6, 0.123, 0.098, 1.0, 0.5, (parameter,)),))
    return Measured(name, 10, 1_230_000, (32, 32), curves, widest)


@pytest.fixture(scope="module")
def report():
    rest = [0.99] * (len(SWEEPS) - 3)
    models = [measured(EVIL, [0.9, 0.8, 0.7, *rest]), measured("user/plain", [0.3, 0.8, 0.75, *rest])]
    examples = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    record = {"config": {"seed": 0}, "versions": {"torch": "2"}, "command": "invariance.py --model <b>"}
    return Report(models, SWEEPS, "user/plain", "some/data & more (test)", examples, 100, 0.1, 0, record)


class Page(HTMLParser):
    """Tags, references, ids and text; complains about tags that are left open and ids that are there twice."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references, self.words, self.ids = [], [], [], [], []
        self.feed(text.replace("<wbr>", ""))
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_one_file_and_shows_everything(report):
    text = page(report)
    parsed = Page(text)
    assert not set(parsed.tags) & {"script", "link", "iframe", "object"}
    anchors = [reference[1:] for reference in parsed.references if reference.startswith("#")]
    assert anchors and set(anchors) <= set(parsed.ids)
    pictures = [reference for reference in parsed.references if not reference.startswith("#")]
    assert pictures and all(reference.startswith("data:image/") for reference in pictures)
    assert not re.search(r"https?:|url\(|@import", text)
    words = " ".join(" ".join(parsed.words).split())
    assert "<script>" not in text
    for expected in (EVIL, "user/plain", "some/data & more (test)", "invariance.py --model <b>", "0.12", "0.75"):
        assert expected in words, expected
    for sweep in SWEEPS:
        assert words.count(sweep.title) >= 4, sweep.title  # two rankings, curves, examples
    kinds = [reference.split(";")[0] for reference in pictures]
    assert kinds.count("data:image/svg+xml") == len(SWEEPS) + 1  # curves, and one primitive
    assert kinds.count("data:image/png") == 3 * len(SWEEPS)  # originals and two models
    for reference in pictures:
        content = base64.b64decode(reference.partition("base64,")[2])
        assert b"<svg" in content or Image.open(io.BytesIO(content)).size == (16 * 3 + 2, 16)


def test_ranking_is_relative_to_the_reference(report):
    numbers = json.loads(json.dumps(as_numbers(report)))
    own, plain = numbers["models"]
    assert own["ranking"]["corruptions"] == ["gaussian_noise", "contrast", "pixelate"]
    assert own["ranked_by"]["contrast"] == 0
    assert own["ranked_by"]["pixelate"] < 0 < own["ranked_by"]["gaussian_noise"]
    assert plain["ranking"]["corruptions"] == ["contrast", "pixelate", "gaussian_noise"]
    assert [sweep["name"] for sweep in numbers["sweeps"]] == [sweep.name for sweep in SWEEPS]
    assert own["widest"]["ranges"][0]["width"] == 0.123
    assert own["curves"]["contrast"]["agreement"] == [0.8] * 5
    text = summary_text(report)
    assert "gaussian noise (+60 ± 10 points)" in text
    assert "contrast (80 ± 8 %)" in text


def test_the_verdict_is_made_of_the_numbers(report):
    """60 of 100 images keep their class in one model only: 60 points, ± 1.96 sqrt((0.6 + 0.04 - 0.36) / 100)."""
    corruptions, quantities = verdict(report)
    assert corruptions == f"Of the corruptions, {EVIL} tolerates gaussian noise 60 ± 10 points better than user/plain."
    assert quantities.startswith("No single quantity is tolerated better or worse")
    worse = replace(report, reference=EVIL)
    assert "user/plain tolerates gaussian noise 60 ± 10 points worse than" in verdict(worse)[0]
    two = replace(report, reference=None)
    assert verdict(two) == verdict(report), "of two models, the second is subtracted from the first"
    assert as_numbers(two)["differences"][0]["by_sweep"]["gaussian_noise"]["points"] == pytest.approx(60)
    one = replace(report, reference=None, models=report.models[1:])
    assert verdict(one)[0] == (
        "Of the corruptions, user/plain keeps its prediction most often under contrast (80 ± 8 % of the images) "
        "and least often under gaussian noise (30 ± 9 % of the images)."
    )
    assert not as_numbers(one)["differences"]
    for text in (page(report), page(two)):
        words = " ".join(" ".join(Page(text).words).split())
        assert all(sentence in words for sentence in verdict(report)) and "Two models, subtracted" in words
        assert (
            text.index("60\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}10 points better")
            < text.index('id="examples"')
            < text.index('id="ranking"')
        )
    assert "Two models, subtracted" not in page(one)
    assert verdict(report)[0] in summary_text(report)


def test_margins_are_those_of_a_bootstrap_over_the_images():
    generator = torch.Generator().manual_seed(0)
    weak, strong = (torch.rand(6, 400, generator=generator) < share for share in (0.7, 0.9))
    weak[:, :100], strong[:, :100] = False, False  # the same images are hard for both
    sweep = next(sweep for sweep in SWEEPS if sweep.name == "rotation")
    own, other = (summarise(sweep, (0.0,) * 6, kept) for kept in (strong, weak))
    rows = torch.randint(400, (4000, 400), generator=generator)
    figures = {"own": torch.tensor(own.kept), "points": torch.tensor(own.kept) - torch.tensor(other.kept)}
    found = {"own": agreement_of(own), "points": difference(own, other)}
    for name, values in figures.items():
        drawn = 100 * values[rows].mean(1)
        assert found[name].value == pytest.approx(100 * values.mean().item())
        low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=drawn.dtype)).tolist()
        assert found[name].margin == pytest.approx((high - low) / 2, rel=0.06)
    assert found["points"].margin < agreement_of(own).margin, "pairs are closer than two samples"


def test_a_margin_is_never_zero():
    (sweep,) = corruption_sweeps(["contrast"])
    sure = summarise(sweep, (0.0,) * 5, torch.ones(5, 100, dtype=torch.bool))
    assert agreement_of(sure).text() == "100 ± 3"
    assert difference(sure, sure).text("+") == "0 ± 3"
    assert Estimate(99.87, 0.1).text() == "99.9 ± 0.2"


def test_page_is_readable_on_narrow_and_dark_screens(report):
    text = page(replace(report, data="some/quite_long_name"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert "@media (prefers-color-scheme: dark)" in style and "@media (max-width: 30rem)" in style
    assert "word-break" not in style and "anywhere" not in style and "break-word" not in style
    assert "some/<wbr>quite_long_name" in text
    for table in re.finditer("<table", text):
        assert text[: table.start()].endswith('<div class="scroll">')
    for heading in re.findall(r"<h[23][^>]*>", text):
        assert "id=" in heading or "name" in heading
    narrow = style[style.index("@media (max-width") : style.index("@media print")]
    columns = re.search(r"\.rank { grid-template-columns: ([^;]*);", narrow).group(1)
    widths = [float(width) for width in re.findall(r"([\d.]+)rem", columns)]
    assert len(widths) == 4
    around = 2 * 0.8 + 2 * 0.9 + 3 * 0.4  # padding of the page and of a card, gaps
    assert 16 * (sum(widths) + around) < 400


def test_markdown_names_the_page_and_its_command(report):
    text = summary_markdown(report)
    assert "[the whole page](invariance.html)" in text
    assert "```bash\ninvariance.py --model <b>\n```" in text
    assert text.startswith(escape(verdict(report)[0]))


def test_markdown_is_escaped(report):
    text = summary_markdown(report)
    bare = re.sub(r"\\.", "", text.partition("```")[0])
    assert "<script>" not in bare and "`" not in bare
    rows = [line for line in bare.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows[:4]} == {6}
    assert "0.12 (0.10)" in text


def test_same_curves_same_bytes(report):
    curves = [model.curves["contrast"] for model in report.models]
    assert plot_curves(SWEEPS[1], curves, 0.1) == plot_curves(SWEEPS[1], curves, 0.1)


def test_short_names_stay_distinct():
    assert short_names(["/a/b/c/", "ARCH:/x/y"]) == ["b/c", "x/y"]
    assert short_names(["/1/b/c", "/2/b/c", "d"]) == ["/1/b/c", "/2/b/c", "d"]


def test_tolerated_in_words():
    noise, rotation = SWEEPS[0], next(sweep for sweep in SWEEPS if sweep.name == "rotation")
    assert [tolerated_text(noise, value) for value in (0.42, None)] == ["severity 0.4", "beyond severity 5"]
    assert [tolerated_text(rotation, value) for value in (12.345, None)] == ["12.3°", "beyond 45°"]
    units = {sweep.name: tolerated_text(sweep, sweep.strengths[0]) for sweep in SWEEPS}
    assert (units["darker"], units["noise"], units["shear"]) == (
        "−0.1 of the range",
        "variance 0.001",
        "0.1 px per row",
    )
    assert (units["contrast_lower"], units["shift"], units["blur"]) == ("0.8×", "3 %", "0.3 px²")


def test_large_pictures_are_shrunk():
    content = base64.b64decode(image_strip(torch.rand(2, 3, 200, 200)).partition("base64,")[2])
    picture = Image.open(io.BytesIO(content))
    assert picture.size == (2 * 96 + 6, 96)
    alpha = np.asarray(picture.getchannel("A"))
    assert (alpha[:, 96:102] == 0).all() and (alpha[:, :96] == 255).all(), "the page shows between the images"


# The command

QUICK = ["--num_images", "12", "--range_turns", "2", "--range_batch_size", "10", "--corruptions", "contrast"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return tiny_teachers(tmp_path_factory.mktemp("teachers"))


def numbers_of(folder):
    content = json.loads((folder / "invariance.json").read_text())
    return {name: content[name] for name in ("data", "models", "sweeps", "num_images")}


def test_command_reports_twice_the_same(checkpoints, tmp_path, monkeypatch):
    flags = ["--models", checkpoints[0], "--reference", checkpoints[1], *QUICK, "--output_dir"]
    done = succeed(PYTHON, RECIPE, *flags, "one", cwd=tmp_path)
    assert "contrast" in done.stdout and "one/invariance.html" in done.stdout
    numbers = numbers_of(tmp_path / "one")
    assert [model["name"] for model in numbers["models"]] == checkpoints
    assert numbers["num_images"] == 12 and numbers["data"] == "digits/target (train), 32 px"
    Page((tmp_path / "one" / "invariance.html").read_text())
    assert (tmp_path / "one" / "invariance.md").read_text().count("|") > 20
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the process above has: sums of several threads differ in their last digits
    run_here([*flags, "two"], tmp_path, monkeypatch)
    torch.set_num_threads(threads)
    assert numbers_of(tmp_path / "two") == numbers


def run_here(flags, folder, monkeypatch):
    """The recipe in this process, under `__main__`."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *flags])
    runpy.run_path(str(RECIPE), run_name="__main__")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "no model given"),
        (["--models", "a", "b", "a"], "'a' is given twice"),
        (["--model", "a", "--corruptions", "nois"], "Unknown corruption 'nois'"),
        (["--model", "a", "--num_images", "0"], "no images"),
        (["--model", "a", "--output_dir", "full"], "full is not empty"),
        (["--model", "TINY", "--dataset", "digits/source", "--eval_split", "test[:0]"], "is empty"),
    ],
)
def test_bad_input_is_one_clear_line(flags, said, checkpoints, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    flags = [checkpoints[0] if flag == "TINY" else flag for flag in flags]
    with pytest.raises(SystemExit) as end:
        run_here(flags, tmp_path, monkeypatch)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert end.value.code == 2
    assert len(errors) == 1 and said in errors[0]
