"""The figures: that the right numbers and the right pixels reach the page."""

import itertools
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.errors import InputError
from hf_transinv.figures import (
    COLORS,
    method_styles,
    plot_augmentations,
    plot_classes,
    plot_confusion,
    plot_corruption_heatmap,
    plot_curves,
    plot_errors,
    plot_history,
    plot_probe,
    plot_summary,
)
from hf_transinv.figures.palette import change_color, change_styles, ink_on, text_color
from hf_transinv.figures.style import class_labels, short
from hf_transinv.invariance.plots import style_of

TEACHERS = ["elastic", "some/very/long/path/to/a/folder/of/a/teacher", "ema"]
PRIMITIVES = ["contrast_brightness", "geometric", "gaussian_blur", "gaussian_noise"]


@pytest.fixture
def saved_figure(monkeypatch):
    """The figures that were saved, to be read as matplotlib has them."""
    figures = []
    save = Figure.savefig

    def remember(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def test_history_without_r_has_no_panel_for_it(tmp_path):
    """`--selection sum` learns no r."""
    records = [{name: value for name, value in line.items() if name != "r"} for line in history(3, 2, 4)]
    with_r, without = (
        plot_history(lines, tmp_path / name, teacher_names=TEACHERS[:2], primitive_names=PRIMITIVES)
        for lines, name in ((history(3, 2, 4), "r.svg"), (records, "q.svg"))
    )
    assert with_r.read_text().count("axes_4") and not without.read_text().count("axes_4")


def history(num_steps, num_teachers, num_primitives):
    generator = torch.Generator().manual_seed(0)
    r = torch.rand(num_steps, num_teachers, generator=generator).softmax(-1)
    q = torch.rand(num_steps, num_teachers, generator=generator)
    p = torch.rand(num_steps, num_teachers, num_primitives, generator=generator).softmax(-1)
    return [
        {"step": 10 * t, "r": r[t].tolist(), "q": q[t].tolist(), "p": p[t].tolist(), "loss": 1.0}
        for t in range(num_steps)
    ]


def test_history_draws_r_and_q_a_line_a_teacher_and_p_a_panel_a_teacher(tmp_path, saved_figure):
    records = history(5, 3, 4)
    path = plot_history(records, tmp_path / "new" / "history.png", teacher_names=TEACHERS, primitive_names=PRIMITIVES)
    assert path == tmp_path / "new" / "history.png"
    with Image.open(path) as picture:
        assert min(picture.size) > 300
    r, q, *p = saved_figure[0].axes
    assert (len(r.lines), len(q.lines), len(p)) == (3, 3, 3)
    for k in range(3):
        for axes, key in ((r, "r"), (q, "q")):
            np.testing.assert_array_equal(axes.lines[k].get_xdata(), [0, 10, 20, 30, 40])
            np.testing.assert_array_equal(axes.lines[k].get_ydata(), [record[key][k] for record in records])
        for i in range(4):
            np.testing.assert_array_equal(p[k].lines[i].get_ydata(), [record["p"][k][i] for record in records])
    assert p[2].get_title(loc="left") == "p: ema"
    assert r.lines[1].get_label().endswith("of/a/teacher")


@pytest.mark.parametrize("num_teachers", [1, 2, 6])
def test_history_of_one_step_and_many_lines_tells_them_apart(tmp_path, saved_figure, num_teachers):
    names = [f"teacher {k}" for k in range(num_teachers)]
    primitives = [f"primitive {i}" for i in range(15)]
    plot_history(history(1, num_teachers, 15), tmp_path / "h.png", teacher_names=names, primitive_names=primitives)
    assert len(saved_figure[0].axes) == 2 + num_teachers
    lines = saved_figure[0].axes[2].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 15
    assert all(line.get_marker() == "o" for line in lines), "a single point needs a marker to be seen"


def test_history_without_records_is_refused(tmp_path):
    with pytest.raises(InputError, match="No records"):
        plot_history([], tmp_path / "h.png", teacher_names=TEACHERS, primitive_names=PRIMITIVES)


def test_augmentations_show_each_primitive_with_its_probability(tmp_path, saved_figure):
    original = torch.rand(2, 3, 8, 8)
    augmented = torch.rand(3, 4, 2, 3, 8, 8, requires_grad=True)
    p = [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.5, 0.25, 0.0]]
    path = plot_augmentations(
        original,
        augmented,
        tmp_path / "augmentations.png",
        teacher_names=TEACHERS,
        primitive_names=PRIMITIVES,
        p=p,
        q=[0.9, 0.4, 0.05],
    )
    with Image.open(path) as picture:
        assert picture.size[0] > 300
    grid = np.array(saved_figure[0].axes).reshape(3, 5)
    assert [axes.get_title() for axes in grid[0]][:3] == ["original", "contrast\nbrightness", "geometric"]
    assert [axes.get_xlabel() for axes in grid[:, 0]] == ["$1 - q$ = 0.10", "$1 - q$ = 0.60", "$1 - q$ = 0.95"]
    for k in range(3):
        for i in range(4):
            axes = grid[k, i + 1]
            assert axes.get_xlabel() == f"$p_{{{i + 1}}}$ = {p[k][i]:.2f}"
            assert (axes.xaxis.label.get_weight() == "bold") == (p[k][i] == max(p[k]))
            (shown,) = axes.images
            pixels = shown.get_array()
            assert pixels.shape == (17, 8, 3)
            expected = augmented[k, i].detach().permute(0, 2, 3, 1).numpy()
            np.testing.assert_array_equal(pixels[:8], expected[0])
            assert (pixels[8] == 1).all()
            np.testing.assert_array_equal(pixels[9:], expected[1])
            assert shown.get_interpolation() == "nearest"


def test_augmentations_of_another_shape_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\[L, K, N, 3, H, W\] = \[3, 4, 2, 3, 8, 8\]"):
        plot_augmentations(
            torch.rand(2, 3, 8, 8),
            torch.rand(4, 3, 2, 3, 8, 8),
            tmp_path / "a.png",
            teacher_names=TEACHERS,
            primitive_names=PRIMITIVES,
            p=[[0.25] * 4] * 3,
            q=[0.5] * 3,
        )


def evaluated(top1, severities=(1, 3, 5)):
    table = {name: {str(s): value for s, value in zip(severities, row, strict=True)} for name, row in top1.items()}
    for row in table.values():
        row["mean"] = sum(row.values()) / len(row)
    mean = sum(row["mean"] for row in table.values()) / len(table) if table else None
    return {"clean": {"top1": 91.26}, "corruptions": table, "corruption_mean": mean, "severities": list(severities)}


def test_the_heat_map_shows_every_cell_of_every_model_on_one_scale(tmp_path, saved_figure):
    whole = evaluated({"gaussian_noise": (80, 60.4, 10), "fog": (90, 70, 49.6)})
    part = evaluated({"fog": (30, 20.5)}, severities=(1, 5))
    path = plot_corruption_heatmap({"some/very/long/path/to/a/model": whole, "b": part}, tmp_path / "new" / "map.png")
    with Image.open(path) as picture:
        assert min(picture.size) > 200
    first, second, bar = saved_figure[0].axes
    np.testing.assert_array_equal(first.images[0].get_array(), [[80, 60.4, 10], [90, 70, 49.6]])
    np.testing.assert_array_equal(second.images[0].get_array(), [[np.nan] * 3, [30, np.nan, 20.5]])
    assert all(axes.images[0].get_clim() == (0, 100) for axes in (first, second))
    assert [text.get_text() for text in first.texts] == ["80", "60", "10", "90", "70", "50"]
    assert [text.get_text() for text in second.texts] == ["30", "20"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["gaussian noise", "fog"]
    assert [label.get_text() for label in first.get_xticklabels()] == ["1", "3", "5"]
    assert first.get_title(loc="left").endswith("a/model\nclean 91.3, mean 60.0")
    assert second.get_title(loc="left") == "b\nclean 91.3", "a mean of other corruptions than beside it"
    assert bar.get_ylabel() == "top-1 (%)"


def test_the_numbers_on_the_heat_map_can_be_read(tmp_path, saved_figure):
    """Contrast of at least 4.5 (WCAG 2, any text) between number and cell, over the whole scale."""
    values = np.linspace(0, 100, 45)
    table = {f"corruption {i}": tuple(values[3 * i : 3 * i + 3]) for i in range(15)}
    plot_corruption_heatmap({"a": evaluated(table)}, tmp_path / "map.png")
    axes = saved_figure[0].axes[0]
    image = axes.images[0]
    for text, value in zip(axes.texts, values, strict=True):
        cell, ink = luminance(image.to_rgba(value)[:3]), {"white": 1.0, "black": 0.0}[text.get_color()]
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) >= 4.5


def luminance(color):
    """Relative luminance of an sRGB colour, WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_titles_of_narrow_panels_do_not_reach_the_next_one(tmp_path, saved_figure):
    results = {name: evaluated({"fog": (50,)}, (3,)) for name in ("TransInv", "fine-tuning", "crop + flip")}
    plot_corruption_heatmap(results, tmp_path / "map.png")
    FigureCanvasAgg(saved_figure[0]).draw()  # at the figure's resolution, not at the file's
    boxes = [axes._left_title.get_window_extent() for axes in saved_figure[0].axes[:3]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_heat_map_without_corruptions_is_refused(tmp_path):
    with pytest.raises(InputError, match="No corruptions"):
        plot_corruption_heatmap({"a": evaluated({})}, tmp_path / "map.png")


LONG = "black-and-gold garden spider, Argiope aurantia"


def test_names_of_classes_are_short_distinct_and_no_mathematics():
    names = ["hen", LONG, f"{LONG} (male)", "crane", "crane", "5 $ or $x_1$", "a\nb"]
    labels = class_labels(names)
    assert labels == [
        "hen",
        "black-and-gold gard… (1)",
        "black-and-gold gard… (2)",
        "crane (3)",
        "crane (4)",
        r"5 \$ or \$x_1\$",
        "a b",
    ]
    assert max(len(label.replace("\\", "")) for label in labels) <= 24


def test_the_confusion_matrix_is_in_percent_of_each_class(tmp_path, saved_figure):
    cells = [(0, 0, 300), (0, 1, 99), (0, 2, 1), (1, 0, 1), (1, 1, 3)]
    path = plot_confusion(cells, (400, 4, 0), ["a", LONG, "c"], tmp_path / "new" / "confusion.png")
    with Image.open(path) as picture:
        assert min(picture.size) > 300
    (axes,) = saved_figure[0].axes
    expected = [[75, 24.75, 0.25], [25, 75, 0], [np.nan] * 3]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert axes.images[0].get_clim() == (0, 100)
    assert [text.get_text() for text in axes.texts] == ["75", "25", "<1", "25", "75"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "black-and-gold garden s…", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "class")


def test_the_numbers_on_the_confusion_matrix_can_be_read(tmp_path, saved_figure):
    cells = [(label, label, 4 * label) for label in range(26)] + [(label, 26, 100 - 4 * label) for label in range(26)]
    plot_confusion(cells, [100] * 27, [str(label) for label in range(27)], tmp_path / "confusion.png")
    (axes,) = saved_figure[0].axes
    for text in axes.texts:
        column, row = text.get_position()
        cell = luminance(axes.images[0].to_rgba(axes.images[0].get_array()[row, column])[:3])
        ink = {"white": 1.0, "black": 0.0}[text.get_color()]
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) >= 4.5


def test_of_many_classes_the_most_confused_pairs_are_shown(tmp_path, saved_figure):
    """Of 31 classes, class k has k of its 100 images taken for the next one."""
    cells = [cell for k in range(31) for cell in ((k, k, 100 - k), (k, (k + 1) % 31, k)) if cell[2]]
    plot_confusion(cells, [100] * 31, [f"class {k}" for k in range(31)], tmp_path / "confusion.png")
    (axes,) = saved_figure[0].axes
    assert [bar.get_width() for bar in axes.patches] == list(range(30, 10, -1))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["class 30 → class 0", "class 29 → class 30"] and len(labels) == 20
    assert axes.texts[0].get_text() == " 30 % (30 of 100)"
    plot_confusion([(k, k, 1) for k in range(31)], [1] * 31, [str(k) for k in range(31)], tmp_path / "none.png")


def test_classes_are_bars_the_worst_first_without_absent_ones(tmp_path, saved_figure):
    plot_classes((50.0, None, 0.0, 100.0), (60.0, None, 0.0, 80.0), (4, 0, 2, 3), list("abcd"), tmp_path / "c.png")
    (axes,) = saved_figure[0].axes
    assert [bar.get_width() for bar in axes.patches] == [0, 50, 100]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c · 2", "a · 4", "d · 3"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 60, 80])
    assert axes.lines[1].get_xdata()[0] == 50, "balanced accuracy"
    assert axes.get_title(loc="left").endswith("(1 without)")


def test_of_many_classes_the_worst_and_the_best_are_bars(tmp_path, saved_figure):
    recall = [float(k) for k in range(51)]
    plot_classes(recall, recall, [1] * 51, [str(k) for k in range(51)], tmp_path / "classes.png")
    (axes,) = saved_figure[0].axes
    assert [bar.get_width() for bar in axes.patches] == [*range(15), *range(36, 51)]
    assert "… 21 more classes …" in [text.get_text() for text in axes.texts]


def test_errors_are_shown_with_class_answer_and_confidence(tmp_path, saved_figure):
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    errors = [(k % 2, 2, 0.99 - k / 10) for k in range(7)]
    plot_errors(images, errors, ["hen", "crane", LONG], tmp_path / "errors.png")
    panels = saved_figure[0].axes
    assert len(panels) == 7
    for k, axes in enumerate(panels):
        np.testing.assert_array_equal(axes.images[0].get_array(), images[k].permute(1, 2, 0).numpy())
        assert axes.get_title() == ("crane" if k % 2 else "hen")
        assert axes.get_xlabel() == f"black-and-gold garde…\n{99 - 10 * k} %"


def test_curves_have_what_the_lines_have(tmp_path, saved_figure):
    lines = [{"step": step, "student/total": 2.0 / step} for step in (1, 2, 3)]
    lines[1] |= {"eval/loss": 1.5, "eval/top1": 40.0}
    lines.append({"step": 4, "student/total": float("nan"), "eval/loss": 1.25, "eval/top1": 60.0, "p": [[1.0]]})
    assert plot_curves(lines, tmp_path / "curves.png") == tmp_path / "curves.png"
    loss, top1 = saved_figure[0].axes
    curves = {text.get_text().strip(): line for text, line in zip(loss.texts, loss.lines, strict=True)}
    np.testing.assert_allclose(curves["training"].get_xydata(), [(1, 2), (2, 1), (3, 2 / 3)])
    np.testing.assert_allclose(curves["validation"].get_xydata(), [(2, 1.5), (4, 1.25)])
    np.testing.assert_allclose(top1.lines[0].get_xydata(), [(2, 40), (4, 60)])
    plot_curves([{"step": 1, "student/total": 2.0}], tmp_path / "curves.png")
    (alone,) = saved_figure[1].axes
    assert alone.get_title(loc="left") == "training loss"


def test_without_values_there_are_no_curves(tmp_path):
    assert plot_curves([], tmp_path / "curves.png") is None
    assert plot_curves([{"step": 1, "augmentation/total": 1.0}], tmp_path / "curves.png") is None
    assert not (tmp_path / "curves.png").exists()


def test_the_summary_frames_the_most_used_primitive_and_draws_what_was_gained(tmp_path, saved_figure):
    original, p = torch.zeros(3, 8, 8), [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]
    augmented = torch.linspace(0, 1, 8).view(2, 4, 1, 1, 1).expand(2, 4, 3, 8, 8)
    before, after = ("plain", {"clean": 80.0, "fog": 40.0}), ("TransInv", {"clean": 81.0, "fog": 60.0, "snow": 1.0})
    names = {"teacher_names": TEACHERS[::2], "primitive_names": PRIMITIVES}
    path = plot_summary(original, augmented, tmp_path / "s.png", p=p, before=before, after=after, **names)
    pictures, chart = saved_figure[0].subfigs
    captions = [axes.get_xlabel() for axes in pictures.axes]
    assert captions == ["", "10%", "20%", "30%", "40%", "", "70%", "10%", "10%", "10%"]
    framed = [axes.get_xlabel() for axes in pictures.axes if axes.spines["top"].get_visible()]
    assert framed == ["40%", "70%"]
    shown = [float(axes.images[0].get_array().mean()) for axes in pictures.axes]
    assert shown == pytest.approx([0, 0, 1 / 7, 2 / 7, 3 / 7, 0, 4 / 7, 5 / 7, 6 / 7, 1])
    old, new = ([x for x, _ in points.get_offsets()] for points in chart.axes[0].collections[1:])
    assert [label.get_text() for label in chart.axes[0].get_yticklabels()] == ["clean", "fog"]
    assert old == [80, 40] and new == [81, 60]  # without snow: the baseline has none
    with Image.open(path) as picture:
        assert picture.size == (1800, 700) and picture.getpixel((0, 0))[3] == 0  # transparent: for dark pages too


def test_the_summary_shows_the_five_most_used_of_many_primitives(tmp_path, saved_figure):
    p = [[0.05, 0.3, 0.1, 0.2, 0.15, 0.12, 0.08]]
    names = {"teacher_names": ["ema"], "primitive_names": list("abcdefg")}
    rows = {"before": ("plain", {"clean": 1.0}), "after": ("TransInv", {"clean": 2.0})}
    plot_summary(torch.zeros(3, 8, 8), torch.zeros(1, 7, 3, 8, 8), tmp_path / "s.png", p=p, **names, **rows)
    titles = [axes.get_title() for axes in saved_figure[0].subfigs[0].axes]
    assert titles == ["original", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize(
    ("shape", "after", "said"),
    [
        ((1, 4, 3, 8, 8), {"fog": 1.0}, "expected [L, K, 3, H, W] = [2, 4, 3, 8, 8]"),
        ((2, 4, 3, 8, 8), {}, "in common"),
    ],
)
def test_a_summary_of_other_shapes_or_rows_is_refused(tmp_path, shape, after, said):
    names = {"teacher_names": ["a", "b"], "primitive_names": PRIMITIVES, "p": [[0.25] * 4] * 2}
    rows = {"before": ("plain", {"fog": 1.0}), "after": ("TransInv", after)}
    with pytest.raises(InputError, match=re.escape(said)):
        plot_summary(torch.zeros(3, 8, 8), torch.zeros(shape), tmp_path / "s.png", **names, **rows)


# Colours


def colours(lines):
    return [line.get_color() for line in lines]


def test_a_colour_has_one_meaning_in_all_figures(tmp_path, saved_figure):
    teachers, primitives = ["a", "b", "ema"], ["gaussian_noise", "contrast_brightness", "gaussian_blur"]
    plot_history(history(2, 3, 3), tmp_path / "h.png", teacher_names=teachers, primitive_names=primitives)
    r, q, *p = saved_figure[0].axes
    of_teachers, of_primitives = colours(r.lines), colours(p[0].lines)
    assert of_teachers == colours(q.lines) == [style_of(k)["color"] for k in range(3)], (
        "and as in the invariance report"
    )
    assert all(colours(axes.lines) == of_primitives for axes in p)
    assert not set(of_teachers) & set(of_primitives) and len({*of_teachers, *of_primitives}) == 6
    images = torch.rand(1, 3, 8, 8)
    probabilities = {"p": [[0.2, 0.3, 0.5]] * 3, "q": [0.5] * 3}
    names = {"teacher_names": teachers, "primitive_names": primitives}
    plot_augmentations(images, torch.rand(3, 3, 1, 3, 8, 8), tmp_path / "a.png", **names, **probabilities)
    grid = np.array(saved_figure[1].axes).reshape(3, 4)
    assert [axes.yaxis.label.get_color() for axes in grid[:, 0]] == [text_color(color) for color in of_teachers]
    assert [axes.title.get_color() for axes in grid[0, 1:]] == [text_color(color) for color in of_primitives]
    probe = {
        "teacher": "t",
        "own": "contrast",
        "p": dict.fromkeys(("gaussian_noise:3", "contrast:3", "defocus_blur:3"), 1 / 3),
    }
    plot_probe([probe], tmp_path / "probe.png")
    bars = saved_figure[2].axes[0].patches
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == of_primitives, "families"
    assert [bar.get_alpha() for bar in bars] == [0.5, 1, 0.5]


def test_members_of_a_family_share_its_colour_and_differ_in_their_lines():
    styles = change_styles([f"{name}:3" for name in CORRUPTIONS])
    assert len(set(styles)) == 15 and len({color for color, _ in styles}) == 6
    assert len({color for color, _ in styles[:3]}) == 1, "noises"
    assert change_styles(["fog"]) == change_styles(["x", "fog"])[1:]


def test_a_method_keeps_its_colour_in_all_comparisons():
    few = dict(zip(titles := ["crop + flip", "TransInv"], method_styles(titles), strict=True))
    more = ["new", "TransInv", "AIT + TransInv", "TransInv, wide", "AIT", "TransInv, wider", "crop + flip", "other"]
    found = dict(zip(more, method_styles(more), strict=True))
    assert {title: found[title] for title in few} == few and len(set(found.values())) == len(more)
    assert found["TransInv, wide"][0] == found["TransInv, wider"][0] == few["TransInv"][0]
    assert found["AIT + TransInv"][0] == found["AIT"][0] and found["AIT"][1] == "o"
    assert not {found["new"][0], found["other"][0]} & set(COLORS)


def test_ink_and_text_can_be_read():
    for level in np.linspace(0, 1, 101):
        for color in ((level,) * 3, (level, 0.2, 0.4), (0.1, level, 0.9)):
            ink = {"white": 1.0, "black": 0.0}[ink_on(color)]
            assert (max(luminance(color), ink) + 0.05) / (min(luminance(color), ink) + 0.05) >= 4.5
    lines = [*COLORS, *(change_color(name) for name in CORRUPTIONS)]
    assert all(1.05 / (luminance(text_color(color)) + 0.05) >= 4.49 for color in lines)
    assert all(1.05 / (luminance(to_rgb(change_color(name))) + 0.05) > 3 for name in CORRUPTIONS)
    assert to_hex(text_color("#0072B2")).upper() == "#0072B2", "legible as it is"


def test_a_probe_has_a_line_at_chance(tmp_path, saved_figure):
    probes = [{"teacher": name, "own": name, "p": dict.fromkeys(CORRUPTIONS, 1 / 15)} for name in ("fog", "snow")]
    plot_probe(probes, tmp_path / "probe.png")
    first, last = saved_figure[0].axes
    for axes in (first, last):
        (line,) = axes.lines
        np.testing.assert_allclose(line.get_ydata(), [1 / 15, 1 / 15])
    assert [text.get_text() for text in first.texts] == [] and last.texts[0].get_text() == "chance\n1/15"


def test_a_probe_of_two_severities_is_refused(tmp_path):
    """One bar would stand for both."""
    probe = {"teacher": "t", "p": {"fog:1": 0.2, "snow:3": 0.3, "fog:5": 0.5}}
    with pytest.raises(InputError, match="primitives fog:1, fog:5"):
        plot_probe([probe], tmp_path / "probe.png")
    assert list(tmp_path.iterdir()) == []


def test_what_is_never_chosen_is_small(tmp_path, saved_figure):
    plot_augmentations(
        torch.rand(2, 3, 8, 8),
        torch.rand(1, 3, 2, 3, 8, 8),
        tmp_path / "a.png",
        teacher_names=["t"],
        primitive_names=PRIMITIVES[:3],
        p=[[0.99, 0.006, 0.004]],
        q=[0.5],
    )
    widths = [abs(np.diff(axes.get_xlim())[0]) for axes in saved_figure[0].axes]
    assert widths == [8, 8, 8, 16]
    sizes = [axes.xaxis.label.get_fontsize() for axes in saved_figure[0].axes]
    assert sizes[3] < sizes[1]


def test_figures_are_opaque_on_white(tmp_path):
    plot_curves([{"step": 1, "student/total": 2.0}], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        pixels = np.asarray(picture.convert("RGBA"))
    assert (pixels[..., 3] == 255).all() and (pixels[0, 0] == 255).all()


def test_names_are_cut_between_their_parts():
    assert short("lab/model") == "lab/model"
    assert short("some/folder/teachers/cifar10_noise_wrn16_2") == "…/cifar10_noise_wrn16_2"
    assert short("x" * 40) == "…" + "x" * 27
