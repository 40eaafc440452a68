"""What the README and the site say is true of the package: their Python runs, their flags, names and links exist."""

import importlib
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

import hf_transinv
from hf_transinv.augment.policies import POLICIES
from hf_transinv.commands.cli import COMMANDS, LAUNCHER_FLAGS, SWITCHES
from hf_transinv.objectives.registry import LEARNED, METHODS
from tests.launching import MULTI_TEACHER, PYTHON, REPOSITORY, succeed

README, DOCS, RECIPES = REPOSITORY / "README.md", REPOSITORY / "docs", REPOSITORY / "recipes"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not path.is_symlink())
DOCUMENTS = [README, REPOSITORY / "CONTRIBUTING.md", *PAGES, *sorted(RECIPES.glob("*.md"))]
OF_OTHER_PROGRAMS = {
    "check",
    "strict",
    "clear-output",
    "inplace",
    "repo-type",
    "local-dir",
    "logdir",
    "config_file",
    "nproc_per_node",
}


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


# Python


@pytest.fixture(scope="module")
def after_a_run(tmp_path_factory) -> Path:
    """A folder in which the run of the tutorial has ended, OUT and outputs/digits."""
    folder = tmp_path_factory.mktemp("documents")
    few = ["--max_steps", 2, "--baselines", "--eval_corruptions", "none", "--output_dir", "outputs/digits"]
    succeed(PYTHON, MULTI_TEACHER, *few, cwd=folder)
    (folder / "OUT").symlink_to("outputs/digits")
    return folder


@pytest.mark.parametrize("path", [path for path in [README, *PAGES] if blocks(path, "python")], ids=named)
def test_the_python_of_a_document_runs(path, after_a_run, monkeypatch):
    monkeypatch.chdir(after_a_run)
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(blocks(path, "python"), 1):
        exec(compile(block, f"{named(path)}, block {number}", "exec"), namespace)


# Commands


@cache
def flags_of(command: str) -> frozenset[str]:
    """What `transinv COMMAND --help_all` lists."""
    module, said = importlib.import_module(f"hf_transinv.commands.{COMMANDS[command]}"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["transinv", "--help_all"])
        patch.setattr("argparse.ArgumentParser._print_message", lambda _, message, file=None: said.append(message))
        with pytest.raises(SystemExit):
            module.main()
    return frozenset(re.findall(r"--(\w+)", " ".join(said)))


WITH_FLAGS = sorted(set(COMMANDS) - {"env", "card"})


def commands_in(path: Path) -> list[tuple[str, list[str]]]:
    """Every command of its bash blocks, and the flags that follow."""
    found = []
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for place, word in enumerate(words):
                command = Path(word).stem.replace("_", "-") if word.startswith("recipes/") else None
                if word == "transinv" and place + 1 < len(words):
                    command = words[place + 1]
                if command and not word.endswith((".yaml", ".md")):
                    command = "card" if command == "render-card" else command
                    found.append((command, [flag[2:] for flag in words[place:] if flag.startswith("--")]))
    return found


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands_in(path)], ids=named)
def test_commands_have_the_flags_that_a_document_gives_them(path):
    for command, flags in commands_in(path):
        assert command in COMMANDS
        assert set(flags) <= {*(flags_of(command) if flags else ()), *LAUNCHER_FLAGS, *SWITCHES}, command


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_flag_in_a_document_is_one(path):
    known = frozenset().union(*map(flags_of, WITH_FLAGS), LAUNCHER_FLAGS, SWITCHES, OF_OTHER_PROGRAMS)
    named_flags = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", path.read_text()))
    assert named_flags - known - {"help", "help_all", "version"} == set()


def test_every_recipe_and_command_stands_in_the_reference():
    text = (DOCS / "reference" / "commands.md").read_text()
    assert set(re.findall(r"`transinv ([a-z-]+)` \|", text)) == set(COMMANDS)
    assert set(re.findall(r"`recipes/(\w+)\.py` \|", text)) == {path.stem for path in RECIPES.glob("*.py")}


# Tables


def test_every_foreign_flag_has_flags_of_transinv_train_or_a_reason():
    text = (DOCS / "how-to" / "coming-from.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    rows = [row for row in rows if row[0] != "timm" and not row[0].startswith("---")]
    ours = {*flags_of("train"), *LAUNCHER_FLAGS, *SWITCHES}
    for row in rows:
        *foreign, here, differs = row
        assert len(foreign) == 2 and any(foreign) and "--" not in "".join(foreign), row
        named_here = re.findall(r"(?<![\w-])--(\w+)", here)
        assert set(re.findall(r"(?<![\w-])--(\w+)", here + differs)) <= ours, row
        assert named_here or (here == "none" and differs), row
    assert len(rows) > 100


def rows_of(heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading of methods.md, by their first cell."""
    section = re.split(r"\n##+ ", (DOCS / "methods.md").read_text().partition(f"## {heading}")[2])[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("What the student minimises", METHODS),
        ("Augmentations that are learned", LEARNED),
        ("Augmentations that are fixed", POLICIES),
    ],
    ids=["methods", "learned", "fixed"],
)
def test_the_table_of_methods_has_every_name_with_its_title_and_passes(heading, known):
    rows = rows_of(heading)
    assert set(rows) == set(known)
    for name, (title, *cells) in rows.items():
        assert title == ("(its augmentation's)" if name == "supervised" else known[name].title)
        if len(cells) > 1:
            assert cells[0].strip("`") in (known[name].__name__, *hf_transinv.__all__)
            assert cells[2].startswith("; ".join(map(str, known[name].passes.values())))


def test_the_reference_has_every_public_name_once():
    pages = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    assert sorted(re.findall(r"^::: hf_transinv\.(\w+)$", pages, re.M)) == sorted(hf_transinv.__all__)


def test_the_reference_has_every_room_of_the_package():
    rooms = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "hf_transinv").glob("*/__init__.py")}
    text = (DOCS / "reference" / "package.md").read_text()
    assert {f"{room}/" for room in rooms} <= set(re.findall(r"^\| `([\w/]+)` ", text, re.M))


# Links and length


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_to_files_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    assert [link for link in links if "://" not in link and not os.path.exists(path.parent / link)] == []


def test_the_site_has_every_page_once():
    def leaves(entry) -> list[str]:
        children = entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else None
        return [entry] if children is None else [leaf for child in children for leaf in leaves(child)]

    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(leaves(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"])) == sorted(pages)


def test_a_newcomer_reads_the_readme_in_five_minutes():
    text = README.read_text()
    assert len([word for word in text.split() if word.strip("|-:·")]) <= 900
    assert blocks(README, "bash")[:2] == [
        "pip install -e . && python recipes/multi_teacher.py\n",
        'pip install -e ".[test]" && pytest -n auto\n',
    ]
