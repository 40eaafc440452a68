"""Where a learned augmentation comes from and goes to: folders of runs, students on the Hub, repositories."""

import json
from pathlib import Path

import pytest
import torch

from hf_transinv.augment.learned_augmentation import LearnedAugmentation
from hf_transinv.augment.saving import load_augmentation, save_augmentation
from hf_transinv.errors import InputError
from hf_transinv.hub.export import export_classifier
from hf_transinv.models.classifier import open_classifier
from tests.augment.learned_pair import TEACHERS, build, floats, panel
from tests.launching import REPOSITORY
from tests.loopback_hub import LoopbackHub
from tests.loopback_hub.fixture import hub, hub_here

__all__ = ["hub", "hub_here"]

SHIPPED = REPOSITORY / "model_cards" / "cifar100_wrn16_2"


# Folders


def student_beside(folder: Path) -> Path:
    """A run's output folder: a student, and the augmentation that was learned with it."""
    export_classifier(open_classifier("wrn10_1_cifar", num_classes=3, pretrained=False), folder / "student")
    save_augmentation(panel(), TEACHERS, folder / "augmentation")
    return folder


@pytest.mark.parametrize("below", ["", "augmentation", "student"])
def test_every_folder_of_a_run_leads_to_it(tmp_path, monkeypatch, below):
    out = student_beside(tmp_path / "out")
    loaded = LearnedAugmentation.from_pretrained(out / below, seed=3)
    assert loaded.teachers == TEACHERS and torch.equal(loaded(floats()), build()(floats()))
    monkeypatch.chdir(out / below)
    assert torch.equal(LearnedAugmentation.from_pretrained(".", seed=3)(floats()), loaded.seed(3)(floats()))


def test_what_an_earlier_version_left_is_loaded():
    augment, content = LearnedAugmentation.from_pretrained(str(SHIPPED), seed=0), SHIPPED / "augmentation"
    written = json.loads((content / "config.json").read_text())
    for found, name in zip(augment.selection(), "pqr", strict=False):
        torch.testing.assert_close(found, torch.tensor(written[name]), rtol=0, atol=1e-6)
    assert list(augment.teachers) == written["teachers"]


def test_saved_files_are_those_of_a_run(tmp_path):
    run = save_augmentation(panel(), TEACHERS, tmp_path / "run")
    assert build().save_pretrained(tmp_path / "again") is None
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["augmentation.safetensors", "config.json"]
    for path in run.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    build(q=1.0).save_pretrained(tmp_path / "again")
    assert load_augmentation(tmp_path / "again").selection().q.min() == 1


def test_a_student_is_not_overwritten(tmp_path):
    out = student_beside(tmp_path)
    before = (out / "student" / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"config.json of something else.*student/augmentation"):
        build().save_pretrained(out / "student")
    assert (out / "student" / "config.json").read_bytes() == before


def test_folders_without_one_are_refused(tmp_path):
    out = student_beside(tmp_path / "out")
    for name in ("none", str(tmp_path / "none"), "./a/b", tmp_path / "none", "a" * 5000):
        with pytest.raises(InputError, match="No folder"):
            LearnedAugmentation.from_pretrained(name)
    with pytest.raises(InputError, match=r"holds no learned augmentation; expected augmentation/config\.json"):
        LearnedAugmentation.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="revision='v1' was given"):
        LearnedAugmentation.from_pretrained(out, revision="v1")
    config = out / "augmentation" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"teachers": "ab"}))
    with pytest.raises(InputError, match="a list of names"):
        LearnedAugmentation.from_pretrained(out)
    config.write_text(json.dumps(content | {"teachers": ["a"]}))
    with pytest.raises(InputError, match="no learned augmentation that can be loaded"):
        LearnedAugmentation.from_pretrained(out)
    config.unlink()
    with pytest.raises(InputError, match="was not learned by TransInv"):
        LearnedAugmentation.from_pretrained(out)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("teachers",), [], "teachers .*a list of names"),
        (("augmentation",), None, "augmentation None; expected an object"),
        (("augmentation", "primitives"), "geometric", "primitives 'geometric'; expected a list of names"),
        (("augmentation", "primitives"), ["whirl"], "'whirl'.*expected some of contrast_brightness"),
        (("augmentation", "primitive"), [], r"primitive \[\]; expected an object"),
        (("augmentation", "q_init"), "0.5", "q_init '0.5'; expected a value of type float"),
        (("augmentation", "q_init"), 1.5, "q_init must be between 0 and 1"),
        (("augmentation", "q_min"), 0.2, "q_min 0.2, a floor of q"),
        (("augmentation", "gumbel_hard"), 1, "gumbel_hard 1; expected a value of type bool"),
        (("augmentation", "q_start"), 0.5, "unknown field 'q_start'"),
        (("augmentation", "primitive", "latent_dim"), 32.0, "latent_dim 32.0; expected a value of type int"),
        (("augmentation", "primitive", "latent_dim"), 16, "size mismatch"),
        (("augmentation", "primitive", "init_scale"), -1, "init_scale must be at least 0"),
    ],
)
def test_a_config_of_other_fields_is_refused_with_the_field(tmp_path, place, value, said):
    folder = save_augmentation(panel(), TEACHERS, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    inner = config
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said) as refused:
        load_augmentation(folder)
    assert str(folder) in str(refused.value)


def test_damaged_weights_are_refused(tmp_path):
    weights = save_augmentation(panel(), TEACHERS, tmp_path) / "augmentation.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="holds no learned augmentation that can be loaded"):
        load_augmentation(tmp_path)


# The Hub


def test_a_student_on_the_hub_brings_its_augmentation(hub_here, tmp_path):
    out = student_beside(tmp_path / "out")
    files = {path.name: path.read_bytes() for path in (out / "student").iterdir()}
    files |= {f"augmentation/{path.name}": path.read_bytes() for path in (out / "augmentation").iterdir()}
    hub_here.put("lab/student", files)
    loaded = LearnedAugmentation.from_pretrained("lab/student", seed=3, cache_dir=tmp_path / "cache")
    assert torch.equal(loaded(floats()), build()(floats()))
    brought = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/**/*") if path.is_file()}
    assert brought == {"config.json", "augmentation.safetensors"}
    paths = {entry.path.split("/resolve/")[1].partition("/")[2] for entry in hub_here.asked("*", "*/resolve/*")}
    assert paths == {"augmentation/config.json", "augmentation/augmentation.safetensors"}
    asked = len(hub_here.requests)
    again = LearnedAugmentation.from_pretrained("lab/student", cache_dir=tmp_path / "cache", local_files_only=True)
    assert len(hub_here.requests) == asked and torch.equal(again.seed(3)(floats()), loaded.seed(3)(floats()))


def test_an_augmentation_of_its_own_goes_to_the_hub_and_comes_back(hub_here: LoopbackHub, tmp_path):
    augment = LearnedAugmentation(panel(), ["lab/noisy", str(tmp_path / "mine" / "teacher")], seed=3)
    address = augment.push_to_hub("lab/augmentation", private=True)
    assert address.startswith(f"{hub_here.endpoint}/lab/augmentation/commit/")
    files = hub_here.files("lab/augmentation")
    wanted = {"augmentation/config.json", "augmentation/augmentation.safetensors", "README.md"}
    assert files.keys() - {".gitattributes"} == wanted
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]
    loaded = LearnedAugmentation.from_pretrained("lab/augmentation", seed=3)
    assert loaded.teachers == ("lab/noisy", "teacher") and torch.equal(loaded(floats()), build()(floats()))
    code = files["README.md"].decode().split("```python\n")[1].split("```")[0]
    scope = {"images": floats()}
    exec(code, scope)
    assert scope["images"].shape == floats().shape and scope["augment"].teachers == loaded.teachers
    with pytest.raises(InputError, match=r"'lab/augmentation' does not exist, or is private"):
        LearnedAugmentation.from_pretrained("lab/augmentation", token=False, cache_dir=tmp_path / "empty")


def test_a_push_leaves_the_student_as_it_is(hub_here, tmp_path):
    student = student_beside(tmp_path) / "student"
    files = {path.name: path.read_bytes() for path in student.iterdir()} | {"README.md": b"# Mine\n"}
    hub_here.put("lab/student", files)
    options = {"push_to_hub": True, "repo_id": "lab/student", "branch": "next", "commit_message": "Add it"}
    assert "/commit/" in build().save_pretrained(tmp_path / "saved", **options)
    with pytest.raises(InputError, match="holds no learned augmentation"):
        LearnedAugmentation.from_pretrained("lab/student")
    loaded = LearnedAugmentation.from_pretrained("lab/student", revision="next", seed=3)
    assert torch.equal(loaded(floats()), build()(floats()))
    pushed = hub_here.files("lab/student", "next")
    assert all(pushed[name] == content for name, content in files.items())
    with pytest.raises(InputError, match="'lab/student' has no revision 'v9'"):
        LearnedAugmentation.from_pretrained("lab/student", revision="v9")
    with pytest.raises(InputError, match="is public, and a private one was asked for"):
        build().push_to_hub("lab/student", private=True)


def test_an_uploaded_folder_is_found_at_the_root(hub_here, tmp_path):
    hub_here.put("lab/root", save_augmentation(panel(), TEACHERS, tmp_path / "augmentation"))
    loaded = LearnedAugmentation.from_pretrained("lab/root", seed=3)
    assert torch.equal(loaded(floats()), build()(floats()))


def test_a_push_that_fails_is_an_error_that_names_the_repository(hub_here, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(InputError, match="lab/augmentation could not be pushed"):
        build().push_to_hub("lab/augmentation")
