"""The figures: that the right numbers and the right pixels reach the page."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from hf_transinv.errors import InputError
from hf_transinv.figures import plot_augmentations, plot_corruption_heatmap, plot_history

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
    """Contrast of at least 3 (WCAG 2, large or incidental text) between number and cell, over the whole scale."""
    values = np.linspace(0, 100, 45)
    table = {f"corruption {i}": tuple(values[3 * i : 3 * i + 3]) for i in range(15)}
    plot_corruption_heatmap({"a": evaluated(table)}, tmp_path / "map.png")
    axes = saved_figure[0].axes[0]
    image = axes.images[0]
    for text, value in zip(axes.texts, values, strict=True):
        cell, ink = luminance(image.to_rgba(value)[:3]), {"white": 1.0, "black": 0.0}[text.get_color()]
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) > 3


def luminance(color):
    """Relative luminance of an sRGB colour, WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_a_heat_map_without_corruptions_is_refused(tmp_path):
    with pytest.raises(InputError, match="No corruptions"):
        plot_corruption_heatmap({"a": evaluated({})}, tmp_path / "map.png")
