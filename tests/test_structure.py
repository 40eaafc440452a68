"""The house: which rooms there are, which may import which, and how large a module may be."""

import ast
from pathlib import Path

import pytest

import hf_transinv

PACKAGE = Path(hf_transinv.__file__).parent
# From the ground up: a room imports from those before it.
ROOMS = (
    *("errors", "files", "config", "divergences", "record", "figures", "formats"),
    *("resolve", "data", "models", "augment", "evaluation", "objectives", "training", "invariance"),
    *("hub", "experiment", "benchmark", "comparison", "commands"),
)
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "assets" not in path.parts
}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports_of(module: str) -> set[str]:
    """Modules of the package that a module imports, also within functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_transinv."):
            origin = node.module.removeprefix("hf_transinv.")
            names = {f"{origin}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {origin}
    return found


def test_there_are_few_modules_at_the_top_and_each_room_has_its_place():
    top = [name for name in MODULES if MODULES[name].parent == PACKAGE]
    assert len(top) <= 8, top
    assert {room_of(name) for name in MODULES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_those_below_it(room):
    upward = {
        f"{module} -> {imported}"
        for module in MODULES
        if room_of(module) == room
        for imported in imports_of(module)
        if ROOMS.index(room_of(imported)) > ROOMS.index(room)
    }
    assert not upward


def test_no_module_imports_itself_in_a_circle():
    imported = {module: imports_of(module) - {module} for module in MODULES if module != "__init__"}
    while free := [module for module, needs in imported.items() if not needs & imported.keys()]:
        for module in free:
            del imported[module]
    assert not imported


def test_no_two_modules_have_one_name():
    names = [path.stem for path in MODULES.values() if path.stem != "__init__"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_at_a_sitting(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300
