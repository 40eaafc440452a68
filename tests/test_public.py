"""What `from hf_transinv import ...` gives: every name, where type checkers look for it, nothing heavy before."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hf_transinv
from tests.launching import REPOSITORY


@pytest.mark.parametrize("name", hf_transinv.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(hf_transinv, name)
    if callable(value):
        assert value.__doc__ and not value.__doc__.startswith(f"{name}(")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hf_transinv.nothing  # noqa: B018


def test_type_checkers_see_what_is_loaded():
    tree = ast.parse((REPOSITORY / "hf_transinv" / "__init__.py").read_text())
    conditions = [node for node in tree.body if isinstance(node, ast.If)]
    block = next(node for node in conditions if getattr(node.test, "id", "") == "TYPE_CHECKING")
    seen = {
        alias.asname or alias.name: (node.module.removeprefix("hf_transinv."), alias.name)
        for node in block.body
        for alias in node.names
    }
    assert seen == hf_transinv._PLACES
    assert sorted([*seen, "InputError", "__version__"]) == sorted(hf_transinv.__all__)


def test_the_package_is_typed():
    assert (Path(hf_transinv.__file__).parent / "py.typed").is_file()


def test_importing_it_registers_architectures_and_loads_nothing_else():
    code = (
        "import sys, hf_transinv, timm; assert timm.is_model('wrn16_2_cifar'); "
        "heavy = ('transformers', 'datasets', 'accelerate', 'torchmetrics', 'matplotlib', 'hf_transinv.training'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"
