"""What comes from outside is data: never code that runs, a path that is written or markup; and tokens stay home.

Outside is whatever somebody else wrote: model folders, checkpoints, data sets, records, and the names in all of them.
"""

import ast
import contextlib
import copy
import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hf_transinv.augment.magnitudes import ParameterRange
from hf_transinv.augment.saving import load_augmentation
from hf_transinv.comparison.plan_reader import read_comparison
from hf_transinv.errors import InputError
from hf_transinv.evaluation.conditions import Condition
from hf_transinv.evaluation.corrupted_folders import open_corrupted_folder
from hf_transinv.experiment.publish import describe_teacher
from hf_transinv.hub.card import render_card
from hf_transinv.hub.export import export_classifier
from hf_transinv.hub.push import push_run
from hf_transinv.invariance.page import page
from hf_transinv.invariance.report import Measured, Report, summary_markdown
from hf_transinv.invariance.sweeps import corruption_sweeps, primitive_sweeps, summarise
from hf_transinv.invariance.tolerated_range import RangeFound, ToleratedRange
from hf_transinv.models.classifier import open_classifier
from hf_transinv.models.conv_vae import load_vae
from hf_transinv.models.teacher import Teacher
from tests.hub.test_card import record
from tests.hub.test_push import make_run
from tests.launching import MULTI_TEACHER, REPOSITORY, tiny_vit_folder
from tests.loopback_hub import LoopbackHub
from tests.loopback_hub.fixture import hub, hub_here
from tests.tiny_run import tiny_vit

__all__ = ["hub", "hub_here"]

SOURCES = [path for folder in ("hf_transinv", "recipes") for path in sorted((REPOSITORY / folder).rglob("*.py"))]

# What the code may call


def calls(path: Path) -> Iterator[tuple[str, dict[str, Any], ast.Call]]:
    """Dotted name, constant keyword arguments and node of each call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            constants = {key.arg: key.value.value for key in node.keywords if isinstance(key.value, ast.Constant)}
            yield ast.unparse(node.func), constants, node


def imported(path: Path) -> set[str]:
    """First parts of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def forbidden(path: Path) -> Iterator[str]:
    """What stands in a file and must not."""
    for module in imported(path) & {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}:
        yield f"import {module}"
    for name, constants, node in calls(path):
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen") or name.startswith("torch.hub"):
            yield name
        if name == "torch.load" and constants.get("weights_only") is not True:
            yield "torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and constants.get("allow_pickle") is not False:
            yield "np.load without allow_pickle=False"
        is_safe = name == "yaml.safe_load" or (name == "yaml.load" and ast.unparse(node.args[1]) == "_Loader")
        if name.startswith("yaml.") and last.endswith("load") and not is_safe:
            yield name
        if last in ("from_pretrained", "from_config"):
            told = constants.get("trust_remote_code") is False or constants.get("use_safetensors") is True
            if not told and "make" not in name:
                yield f"{name} without trust_remote_code=False or use_safetensors=True"
        if constants.get("trust_remote_code") or constants.get("shell") or constants.get("weights_only") is False:
            yield f"{name}: {constants}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_nothing_in_a_file_reads_pickles_or_runs_what_it_reads(path):
    assert list(forbidden(path)) == []


def test_the_search_finds_what_it_is_for(tmp_path):
    harmful = ["torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "yaml.load(t, yaml.Loader)"]
    harmful += ["yaml.unsafe_load(t)", "eval(t)", "import pickle", "subprocess.run(c, shell=True)"]
    harmful += ["AutoConfig.from_pretrained(f)", "AutoConfig.from_pretrained(f, trust_remote_code=True)"]
    for line in harmful:
        (tmp_path / "code.py").write_text(line)
        assert list(forbidden(tmp_path / "code.py")), line


def test_the_loader_of_yaml_makes_no_objects():
    from hf_transinv.experiment.arguments import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    assert not {tag for tag in _Loader.yaml_constructors if tag and "python" in tag}


# Pickles and code in folders


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


@pytest.fixture
def harm(tmp_path) -> Iterator[Path]:
    """What a harmful file would make; it must not be there at the end."""
    yield tmp_path / "harm"
    assert not (tmp_path / "harm").exists()


@pytest.fixture
def pickled(tmp_path, harm) -> Path:
    """A checkpoint of torch that does harm when it is loaded."""
    torch.save(Harmful(harm), tmp_path / "evil.bin")
    return tmp_path / "evil.bin"


@pytest.fixture
def timm_model(tmp_path) -> Path:
    return tiny_vit_folder(tmp_path / "timm", ["ant", "bee"])


@pytest.fixture
def transformers_model(tmp_path) -> Path:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path / "transformers"
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def test_the_pickle_of_these_tests_is_harmful(tmp_path):
    torch.save(Harmful(tmp_path / "made"), tmp_path / "evil.bin")
    with pytest.raises(AttributeError):  # a path is no checkpoint, but by then it is too late
        torch.load(tmp_path / "evil.bin", weights_only=False).keys()
    assert (tmp_path / "made").is_dir()


def index_to(folder: Path, file: str) -> None:
    content = {"metadata": {}, "weight_map": {"classifier.weight": file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["timm_model", "transformers_model"])
@pytest.mark.parametrize("place", ["alone", "renamed", "by an index", "by an index that leaves", "beside an index"])
def test_a_model_folder_with_a_pickle(request, kind, place, pickled):
    folder = request.getfixturevalue(kind)
    weights = folder / "model.safetensors"
    if place == "renamed":
        shutil.copy(pickled, weights)
    else:
        weights.unlink()
    for name in ("pytorch_model.bin", "model.pth", "checkpoint.tar"):
        shutil.copy(pickled, folder / name)
    if place.startswith("by an index"):
        index_to(folder, "pytorch_model.bin" if place == "by an index" else "../evil.bin")
    if place == "beside an index":
        index_to(folder, "model-00001-of-00001.safetensors")
    with pytest.raises(InputError):
        open_classifier(str(folder))


@pytest.mark.parametrize("kind", ["timm_model", "transformers_model"])
def test_a_pickle_beside_good_weights_is_not_looked_at(request, kind, pickled):
    folder = request.getfixturevalue(kind)
    for name in ("pytorch_model.bin", "model.pth", "training_args.bin", "optimizer.pt"):
        shutil.copy(pickled, folder / name)
    assert open_classifier(str(folder)).num_classes == 2


@pytest.mark.parametrize(
    "key", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained_strict"]
)
def test_a_config_of_timm_leads_to_no_other_weights(timm_model, key, pickled):
    path = timm_model / "config.json"
    config = json.loads(path.read_text())
    if key == "pretrained_strict":  # weights that are missing would go unnoticed
        path.write_text(json.dumps(config | {"model_args": config["model_args"] | {key: False}}))
        with pytest.raises(InputError, match=key):
            open_classifier(str(timm_model))
        return
    leading = {"file": str(pickled), "url": f"file://{pickled}", "custom_load": True, "hf_hub_id": "lab/evil"}
    config["pretrained_cfg"] |= leading
    config["model_args"][key] = leading if key.startswith("pretrained") else str(pickled)
    path.write_text(json.dumps(config))
    with pytest.raises(InputError):
        open_classifier(str(timm_model))
    del config["model_args"][key]
    path.write_text(json.dumps(config))
    assert open_classifier(str(timm_model)).num_classes == 2  # its own weights


@pytest.mark.parametrize("where", ["config.json", "preprocessor_config.json", "both", "new kind"])
def test_code_that_comes_with_a_model_is_not_run(transformers_model, where, harm):
    (transformers_model / "evil.py").write_text(f"import os\nos.mkdir({str(harm)!r})\n")
    names = {
        "AutoConfig": "evil.Evil",
        "AutoModelForImageClassification": "evil.Evil",
        "AutoImageProcessor": "evil.Evil",
    }
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((transformers_model / name).read_text())
        if where in (name, "both", "new kind"):
            content["auto_map"] = names
        if where == "new kind" and name == "config.json":
            content["model_type"] = "evil"
        (transformers_model / name).write_text(json.dumps(content))
    with contextlib.suppress(InputError):  # refused, or opened by the library's own code
        open_classifier(str(transformers_model))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
def test_kernels_of_others_are_not_fetched(transformers_model, key):
    path = transformers_model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "evil/kernel"}))
    with pytest.raises(InputError, match=r"evil/kernel.*never run"):
        open_classifier(str(transformers_model))


def test_other_folders_with_pickles(tmp_path, pickled):
    for name, load in (("augmentation.safetensors", load_augmentation), ("model.safetensors", load_vae)):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        shutil.copy(pickled, folder / name)
        shutil.copy(pickled, folder / "config.json")
        with pytest.raises(InputError):
            load(folder)


def test_corrupted_arrays_with_pickles(tmp_path, harm):
    for name in ("labels", "contrast"):
        np.save(tmp_path / f"{name}.npy", np.array([Harmful(harm)] * 5, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        open_corrupted_folder(tmp_path, [Condition("contrast", 1)], ["a", "b"])


# Names and paths

HOSTILE = [
    "../../x",
    "/nowhere/x",
    "a\0b",
    "x" * 5000,
    "CON",
    "..",
    ".",
    "~",
    "a\nb",
    "\\\\host\\share",
    "{{ 7 }}",
    "<b>",
]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_label_names_are_no_paths(tmp_path):
    student = tiny_vit(len(HOSTILE))
    student.label_names = list(HOSTILE)
    export_classifier(student, tmp_path / "deep" / "down" / "student", card="")
    expected = {"config.json", "model.safetensors", "README.md"}
    assert files_below(tmp_path) == {"deep", "deep/down", "deep/down/student"} | {
        f"deep/down/student/{n}" for n in expected
    }
    assert open_classifier(str(tmp_path / "deep" / "down" / "student")).label_names == HOSTILE


COMPARISON = {"dataset": "digits/target", "student": "test_vit", "max_steps": 2, "batch_size": 8}


@pytest.mark.parametrize("title", HOSTILE)
def test_titles_of_rows_are_no_paths(tmp_path, title):
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump(COMPARISON | {"rows": {"plain": {}, title: {}}}))
    try:
        comparison = read_comparison(["--config", str(path)])
    except InputError as refused:
        assert len(title) > 255 or not title.isprintable(), refused
        return
    for run in comparison.runs({}):
        folder = re.sub(r"\W+", "_", run.name)  # as the session names it
        assert Path(folder).name == folder and folder.strip(".") and len(folder.encode()) < 255


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_models_are_no_paths_that_are_written(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    for prefix in ("", "hf-hub:", "hf-hub:lab/", "local-dir:", "wrn10_1_cifar:", "lab/model@"):
        with pytest.raises(InputError):
            open_classifier(prefix + name)
    assert {file.partition("/")[0] for file in files_below(tmp_path)} <= {"cache"}


def test_names_of_files_on_the_hub_stay_in_the_cache(hub_here, tmp_path):
    folder = tiny_vit_folder(tmp_path / "model", ["a", "b"])
    content = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    outside = {"model-/../../../../../outside-of-x.safetensors": b"x", "../outside.json": b"x"}
    hub_here.put("lab/evil", content | outside)
    try:
        assert open_classifier("lab/evil").num_classes == 2
    except InputError as refused:
        assert "lab/evil" in str(refused)
    assert not [path for path in tmp_path.rglob("*outside*") if "blobs" not in path.parts]


@pytest.mark.parametrize("name", ["../../x", "/nowhere/x", "lab/../../x", "a\0b", "x" * 5000, "lab/a b", ""])
def test_repositories_are_pushed_to_by_ids_alone(hub_here, tmp_path, name):
    folder = make_run(tmp_path / "out")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError):
        push_run(folder, name)
    assert hub_here.repositories() == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# Text on cards and pages

INJECTIONS = [
    "</details><script>alert(1)</script><img src=x onerror=alert(1)> [x](javascript:alert(1)) ![i](//evil.example/i)",
    "a|b\\|c|| `` ` ```\n```\n# Mine {{ 7 * 7 }}{% raw %}${7*7}$",
    "a\n---\nlicense: evil\n---\n# Mine",
]


def leaves(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where every string of a record stands; of a list only the first, which is treated as the others are."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content[:1]):
            yield from leaves(value, (*path, key))
    elif isinstance(content, str):
        yield path


def changed(content: Any, path: tuple, value: str) -> Any:
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return content


def without_code(text: str) -> str:
    """A card's Markdown without what is shown as code, and without what is escaped."""
    text = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.S | re.M)
    return re.sub(r"\\[!-/:-@\[-`{-~]|`[^`\n]+`", "", text)


def metadata_of(card: str) -> dict[str, Any]:
    """The YAML between the first two lines of three dashes, as the Hub finds it."""
    return yaml.load(REGEX_YAML_BLOCK.search(card).group(2), yaml.CSafeLoader)


def check_card(card: str, plain: str) -> None:
    """The card has the structure of the one without injections: metadata, headings, tables, links, tags."""
    metadata = metadata_of(card)
    assert metadata.keys() <= metadata_of(plain).keys() and metadata.get("license") != "evil"
    text, before = (without_code(REGEX_YAML_BLOCK.sub("", each, count=1)) for each in (card, plain))
    known = r"https://huggingface\.co/|https://github\.com/hf-transinv/hf_transinv\)|figures/"
    assert not re.search(rf"<script|<img|\]\((?!{known})|49", text), text
    for mark in (r"<\w+", r"^#"):
        assert len(re.findall(mark, text, flags=re.M)) <= len(re.findall(mark, before, flags=re.M))
    assert "---" not in [line.strip() for line in text.splitlines()]
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize("injection", INJECTIONS)
def test_no_string_of_a_record_is_markup_on_the_card(injection):
    run = record()
    run["config"] |= {"corruption": ["contrast"], "severities": [1, 2], "clean_share": 0.5, "note": "x"}
    run["policies"], run["task"] = ["randaugment"], "supervised"
    plain, shown = render_card(run), 0
    for path in leaves(run):
        try:
            card = render_card(changed(run, path, injection))
        except InputError:
            continue  # the record does not fit together any more
        check_card(card, plain)
        shown += card != plain
    assert shown > 30


@pytest.mark.parametrize("injection", INJECTIONS)
def test_no_key_of_a_record_is_markup_on_the_card(injection):
    run = record()
    plain = render_card(run)
    rows = run["rows"]
    rows[injection] = rows.pop("crop + flip")
    for row in rows.values():
        corruptions = row["results"]["corruptions"]
        corruptions[injection] = corruptions.pop("contrast")
        row["results"]["augmented"] = {injection: {"top1": 1.0, "kl": 0.5}}
    run["versions"][injection] = injection
    run["magnitudes"][0][injection] = run["magnitudes"][0]["gaussian_noise"]
    check_card(render_card(run), plain)


def test_a_teachers_own_record_brings_no_markup(tmp_path):
    folder = tiny_vit_folder(tmp_path / "teacher", ["ant", "bee"])
    for corruption in (INJECTIONS, {"a": 1}, "contrast", [["contrast"]], None, ["contrast", "<script>"]):
        (folder / "run.json").write_text(json.dumps({"config": {"corruption": corruption}}))
        found = describe_teacher(Teacher(open_classifier(str(folder))))
        assert set(found.trained_on or ()) <= {"contrast"}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text.replace("<wbr>", ""))  # as many as a name has parts

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def report_about(name: str) -> Report:
    """A small report in which every text from outside is `name`."""
    sweeps = (*corruption_sweeps(["contrast"]), *primitive_sweeps()[:1])
    parameter = ParameterRange("noise variance", "", 0.0, 0.12, 0.0, (0.01, 0.02, 0.03))
    widest = ToleratedRange(0.75, (RangeFound("gaussian_noise", 0.6, 0.123, 0.098, 1.0, 0.5, (parameter,)),))
    models = []
    for each in (name, "plain"):
        kept = torch.arange(100) < 90
        curves = {s.name: summarise(s, (0.2,) * len(s.strengths), kept.expand(len(s.strengths), -1)) for s in sweeps}
        models.append(Measured(each, 10, 1_230_000, (8, 8), curves, widest))
    record = {"config": {"a": name}, "versions": {name: name}, "command": name}
    return Report(models, sweeps, name, name, torch.rand(1, 3, 8, 8), 100, 0.1, 0, record)


def test_no_name_is_markup_in_the_invariance_report():
    everything = " ".join(INJECTIONS)
    plain, evil = Tags(page(report_about("plain model"))), Tags(page(report_about(everything)))
    assert evil.tags == plain.tags
    assert [key for key, _ in evil.attributes] == [key for key, _ in plain.attributes]
    assert not [key for key, _ in evil.attributes if key.startswith("on")]
    text = without_code(summary_markdown(report_about(everything)))
    for link in ("[the whole page](invariance.html)", "[invariance.json](invariance.json)"):
        text = text.replace(link, "")
    assert not re.search(r"[<\[\]`]|\n---\n", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows[:4]} == {6}


# The token


@pytest.fixture
def recipe(monkeypatch, capfd) -> Callable[..., tuple[int, str]]:
    """Runs a recipe in this process; returns its exit code and all it wrote."""

    def run(path: Path, *flags: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(path), *flags])
        code = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, "".join(capfd.readouterr())

    return run


def holders(folder: Path, token: str) -> list[Path]:
    """The files in which a token stands."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if token.encode() in path.read_bytes()]


def test_the_token_is_nowhere(hub_here: LoopbackHub, recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    token = hub_here.token
    assert os.environ["HF_TOKEN"] == token
    flags = ["--dataset", "digits/target", "--image_size", "32", "--student", "wrn10_1_cifar", "--batch_size", "16"]
    flags += ["--max_steps", "2", "--inner_steps", "1", "--teachers", "ema", "--eval_corruptions", "none"]
    flags += ["--output_dir", "out", "--push_to_hub", "lab/student", "--push_every", "1", "--save_steps", "1"]
    hub_here.misbehave("POST", "*/commit/*", 403, times=None)
    code, said = recipe(MULTI_TEACHER, *flags)
    assert code == 0 and "Not published: lab/student could not be pushed (403" in said, said
    written = said + caplog.text
    for recipe_name, *arguments in (("push.py", "out", "lab/student"), ("render_card.py", "out")):
        code, said = recipe(REPOSITORY / "recipes" / recipe_name, *arguments)
        assert code == (2 if recipe_name == "push.py" else 0), said
        written += said
    code, said = recipe(MULTI_TEACHER, *flags[:4], "--student", "lab/none", "--student_init", "pretrained", *flags[6:])
    assert code == 2 and "Hub model 'lab/none' does not exist, or is private" in said, said
    written += said
    with pytest.raises(InputError, match="private and not open to you") as refused:
        open_classifier("lab/none")
    written += str(refused.value)
    assert hub_here.asked("POST", "*/commit/*") and token not in written + caplog.text
    assert holders(tmp_path, token) == []
    hub_here.behave()
    push_run(tmp_path / "out", "lab/student")
    assert not [name for name, content in hub_here.files("lab/student").items() if token.encode() in content]
