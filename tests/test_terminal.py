"""Markdown in a terminal."""

import pytest

from hf_transinv.formats.markdown import MARK, code, escape, table
from hf_transinv.formats.terminal import block, for_terminal, printed

TEXT = table(["row", "clean", "mean of corruptions"], [["a | b_c", "1.0", f"**22.0{MARK}**"], ["d", "–", "3.5"]])


def test_a_line_of_the_start_is_folded_below_its_text_on_a_terminal_alone(monkeypatch):
    lines = ["student     a network with a description that is long", "device      cpu"]
    assert block(lines) == "\n".join(lines)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    assert block(lines) == ("student     a network with a description\n            that is long\ndevice      cpu")


def test_a_table_is_aligned_and_nothing_is_escaped():
    page = f"{code('OUT/a_b')} on {escape('x_y*')}\n\n{TEXT}\n\n{MARK} trained on it\n"
    assert for_terminal(page, 80) == (
        "OUT/a_b on x_y*\n"
        "\n"
        "                    mean of\n"
        "row      clean  corruptions\n"
        "───────────────────────────\n"
        "a | b_c    1.0        22.0*\n"
        "d            –          3.5\n"
        "\n"
        "* trained on it"
    )


def test_what_is_bold_is_bold_and_stays_aligned():
    plain, bold = for_terminal(TEXT, 80), for_terminal(TEXT, 80, has_bold=True)
    assert "\033[1m22.0*\033[0m" in bold
    assert bold.replace("\033[1m", "").replace("\033[0m", "") == plain


@pytest.mark.parametrize("width", [24, 40, 80, 140])
def test_a_table_wider_than_the_terminal_goes_on_below(width):
    numbers = [f"{number}.5" for number in range(12)]
    text = for_terminal(
        table(["model", *(f"column {number}" for number in range(12))], [["TransInv", *numbers]]), width
    )
    assert all(len(line) <= width for line in text.splitlines())
    rows = [line.split() for line in text.splitlines() if line.startswith("TransInv")]
    assert [number for row in rows for number in row[1:]] == numbers


def test_paragraphs_are_wrapped():
    assert for_terminal("one two three four", 10) == "one two\nthree four"


def test_what_is_piped_is_80_wide_and_not_bold(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print(printed(f"{TEXT}\n\n{'word ' * 40}"))
    said = capsys.readouterr().out
    assert "\033" not in said and 60 < max(map(len, said.splitlines())) <= 80
