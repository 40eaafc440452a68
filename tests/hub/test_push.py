"""Publishing to a Hub that does as it should, that misbehaves, and that is not there."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load, load_file

from hf_transinv.config import OutputConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.hub.export import export_classifier
from hf_transinv.hub.push import BackgroundPush, check_finished, check_token, push_run
from hf_transinv.models.classifier import open_classifier
from tests.launching import PYTHON, REPOSITORY, launch
from tests.loopback_hub import LoopbackHub
from tests.loopback_hub.fixture import OLD_CLIENT, hub, hub_here, since_1
from tests.tiny_run import tensors_of, tiny_trainer, tiny_vit

__all__ = ["hub", "hub_here"]

PUSHED = {"README.md", "config.json", "model.safetensors", "run.json", "figures/selection.png", "augmentation/p.json"}
PREUPLOAD, COMMIT = "/api/models/lab/*/preupload/*", "/api/models/lab/*/commit/*"
STORAGE, BATCH, VERIFY = "/models/lab/*", "*.git/info/lfs/objects/batch", "*.git/info/lfs/verify"


@pytest.fixture
def no_token(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no" / "token"))


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that the client meant to sleep before it tries again."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def finished_run(tmp_path) -> Path:
    return make_run(tmp_path / "out")


def make_run(folder: Path, **config: object) -> Path:
    """What a finished run leaves behind, with a student of a few kilobytes."""
    torch.manual_seed(0)
    student = open_classifier("wrn10_1_cifar", num_classes=3, label_names=list("abc"), pretrained=False)
    export_classifier(student, folder / "student", card="of this place")
    for name in ("figures/selection.png", "augmentation/p.json"):
        (folder / name).parent.mkdir()
        (folder / name).write_text(name)
    results = {"num_images": 4, "clean": {"top1": 50.0}, "corruptions": {}}
    row = {"results": results, "steps": 8, "images_seen": 64, "train_seconds": 1.0, "learned": {}}
    fields = {"dataset": "digits/target", "student": "wrn10_1_cifar", "student_init": "scratch", "seed": 0}
    run = {"recipe": "train_teacher", "status": "finished", "config": fields | config, "rows": {"teacher": row}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pushed_files(hub: LoopbackHub, repo_id: str = "lab/student", revision: str = "main") -> dict[str, bytes]:
    files = hub.files(repo_id, revision)
    return {name: files[name] for name in files if name != ".gitattributes"}


def titles(hub: LoopbackHub, repo_id: str = "lab/student", revision: str = "main") -> list[str]:
    """Of the commits after the one that created the repository, newest first."""
    return [commit.title for commit in hub.commits(repo_id, revision)][:-1]


# The token


def test_no_token_is_refused(no_token):
    with pytest.raises(InputError, match=r"token: run `hf auth login` or set HF_TOKEN"):
        check_token()


def test_a_token_of_the_environment_is_enough(no_token, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    check_token()


@pytest.mark.parametrize("given", [["--hub_token", "hf_secret"], ["--hub_token=hf_secret"]])
def test_a_token_on_the_command_line_is_refused_and_not_repeated(given):
    with pytest.raises(InputError, match="unknown flag 'hub_token'") as refused:
        parse([OutputConfig], given)
    assert "secret" not in str(refused.value)


def test_a_token_that_http_cannot_carry_is_not_shown(hub_here, finished_run, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text("hf_sec\0ret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match="could not be pushed") as refused:
        push_run(finished_run, "lab/student")
    assert "hf_sec" not in str(refused.value)
    assert ("Unauthorized" if OLD_CLIENT else "Illegal header value b'<token>'") in str(refused.value)


# A finished run


def test_a_run_becomes_one_commit_in_the_layout_of_timm(hub_here, finished_run):
    before = content_of(finished_run)
    assert push_run(finished_run, "lab/student") == f"{hub_here.endpoint}/lab/student"
    files = pushed_files(hub_here)
    assert files.keys() == PUSHED and titles(hub_here) == ["Student trained with hf_transinv"]
    for name in ("config.json", "model.safetensors"):
        assert files[name] == before[finished_run / "student" / name]
    assert b"hf-hub:lab/student" in files["README.md"]
    assert json.loads(files["run.json"])["rows"] == json.loads(before[finished_run / "run.json"])["rows"]
    assert not hub_here.repository("lab/student").private
    assert content_of(finished_run) == before


def test_teachers_of_the_augmentation_go_without_local_paths(hub_here, finished_run):
    config = finished_run / "augmentation" / "config.json"
    content = {
        "teachers": ["lab/noisy@v1", "resnet32_cifar:/home/me/w", "/home/me/blur/student"],
        "r": [0.5, 0.25, 0.25],
    }
    config.write_text(json.dumps(content))
    push_run(finished_run, "lab/student")
    pushed = json.loads(pushed_files(hub_here)["augmentation/config.json"])
    assert pushed == content | {"teachers": ["lab/noisy@v1", "resnet32_cifar:w", "blur/student"]}
    assert json.loads(config.read_text()) == content
    config.write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read.*nothing was pushed"):
        push_run(finished_run, "lab/student")


def test_a_second_push_sends_what_changed_and_nothing_else(hub_here, finished_run):
    push_run(finished_run, "lab/student")
    del hub_here.requests[:]
    push_run(finished_run, "lab/student")
    assert not hub_here.asked("PUT", "*") and not hub_here.asked("POST", COMMIT)
    (finished_run / "figures" / "selection.png").write_text("another")
    push_run(finished_run, "lab/student")
    assert len(hub_here.asked("PUT", "*")) == 1 and len(titles(hub_here)) == 2
    assert pushed_files(hub_here)["figures/selection.png"] == b"another"


def test_private_and_branch(hub_here, finished_run, tmp_path):
    address = push_run(finished_run, "lab/student", private=True, revision="v1")
    assert address.endswith("/lab/student/tree/v1") and hub_here.repository("lab/student").private
    assert pushed_files(hub_here, revision="v1").keys() == PUSHED and pushed_files(hub_here) == {}
    configured = make_run(tmp_path / "configured", private=True, hub_revision="v2")
    push_run(configured, "lab/other")
    assert hub_here.repository("lab/other").private and pushed_files(hub_here, "lab/other", "v2").keys() == PUSHED


def test_private_is_not_published_where_everybody_reads(hub_here, finished_run):
    hub_here.put("lab/student", {"a": b"b"})
    with pytest.raises(InputError, match="it exists and is public"):
        push_run(finished_run, "lab/student", private=True)
    assert pushed_files(hub_here) == {"a": b"b"}


@pytest.mark.parametrize("repo_id", ["other/student", "a/b/c"])
def test_a_name_that_cannot_be_written_to_is_refused(hub_here, finished_run, repo_id):
    with pytest.raises(InputError, match=rf"{repo_id} could not be pushed .* is complete and unchanged"):
        push_run(finished_run, repo_id)


def test_an_unreachable_hub_leaves_the_folder_complete(unreachable, finished_run):
    before = content_of(finished_run)
    with pytest.raises(InputError, match=r"user/name could not be pushed.*is complete and unchanged"):
        push_run(finished_run, "user/name")
    assert content_of(finished_run) == before


def test_only_finished_runs_with_a_student_are_taken(finished_run, tmp_path):
    check_finished(finished_run)
    (finished_run / "student" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no student"):
        check_finished(finished_run)
    run = json.loads((finished_run / "run.json").read_text())
    (finished_run / "run.json").write_text(json.dumps({**run, "status": "running"}))
    with pytest.raises(InputError, match=r"not finished.*--resume_from latest"):
        check_finished(finished_run)
    with pytest.raises(InputError, match="holds no run"):
        check_finished(tmp_path)


def test_the_recipe_completes_a_push_that_failed(hub_here, finished_run, tmp_path):
    hub_here.misbehave("POST", COMMIT, 500)
    with pytest.raises(InputError, match="transinv push"):
        push_run(finished_run, "lab/student", private=True)
    flags = [finished_run, "lab/student", "--private"]
    done = launch(PYTHON, REPOSITORY / "recipes" / "push.py", *flags, cwd=tmp_path, **hub_here.environment(tmp_path))
    assert done.returncode == 0 and done.stdout == f"Published: {hub_here.endpoint}/lab/student\n"
    assert pushed_files(hub_here).keys() == PUSHED and hub_here.repository("lab/student").private
    assert hub_here.strays == [] and hub_here.token not in done.stdout + done.stderr
    assert not any(hub_here.token.encode() in data for data in content_of(tmp_path).values())


# A Hub that misbehaves

ENDS_WELL = [
    pytest.param(PREUPLOAD, 429, 1, marks=since_1),
    pytest.param(PREUPLOAD, 500, 1, marks=since_1),
    pytest.param(BATCH, 429, 1, marks=since_1),
    pytest.param(BATCH, 503, 1, marks=since_1),
    (STORAGE, 500, 1),
    (STORAGE, "cut", 1),
    (STORAGE, "lost", 1),
    (STORAGE, "slow", None),
    pytest.param(VERIFY, 500, 1, marks=since_1),
]
FAILS = [
    ("/api/repos/create", 401, 1),
    ("/api/repos/create", 500, 1),
    ("/api/repos/create", "lost", 1),
    ("/api/validate-yaml", 500, None),
    (PREUPLOAD, 403, 1),
    (PREUPLOAD, 429, None),
    (BATCH, 401, 1),
    (BATCH, 500, None),
    (STORAGE, 403, 1),
    (STORAGE, 500, None),
    (STORAGE, "cut", None),
    (STORAGE, "corrupt", 1),
    (VERIFY, 404, 1),
    (COMMIT, 401, 1),
    (COMMIT, 403, 1),
    (COMMIT, 404, 1),
    (COMMIT, 409, 1),
    (COMMIT, 412, 1),
    (COMMIT, 429, 1),
    (COMMIT, 500, 1),
    (COMMIT, "cut", 1),
    (COMMIT, "lost", 1),
]


@pytest.mark.parametrize(("path", "kind", "times"), ENDS_WELL)
def test_what_the_client_tries_again_ends_well(hub_here, waits, finished_run, path, kind, times):
    hub_here.misbehave("*", path, kind, times=times, seconds=0.01 if kind == "slow" else 0)
    push_run(finished_run, "lab/student")
    assert hub_here.pending() == [] and pushed_files(hub_here).keys() == PUSHED


@pytest.mark.parametrize(("path", "kind", "times"), FAILS)
def test_a_push_that_fails_costs_nothing_and_a_second_completes_it(
    hub_here, waits, finished_run, caplog, capfd, path, kind, times
):
    before = content_of(finished_run)
    hub_here.misbehave("*", path, kind, times=times)
    with pytest.raises(InputError) as refused:
        push_run(finished_run, "lab/student")
    assert hub_here.pending() == [] and content_of(finished_run) == before
    message = str(refused.value)
    assert message.startswith("lab/student could not be pushed (") and f"{finished_run} is complete" in message
    assert message.endswith(f"Complete the push later: transinv push {finished_run} lab/student")
    if isinstance(kind, int):  # also where the client's own words are only "Error while uploading"
        assert str(kind) in message
    assert hub_here.token not in message + caplog.text + "".join(capfd.readouterr())
    hub_here.behave()
    push_run(finished_run, "lab/student")
    assert pushed_files(hub_here).keys() == PUSHED and len(titles(hub_here)) == 1


# While training goes on


def output(**fields: object) -> OutputConfig:
    return OutputConfig(push_to_hub="lab/student", **{"push_every": 1, **fields})


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


@pytest.fixture
def student() -> Iterator:
    torch.manual_seed(0)
    return tiny_vit()


def test_each_push_is_the_student_of_its_step(hub_here, student):
    as_offered = {name: tensor.clone() for name, tensor in student.network.state_dict().items()}
    branch = "training"
    with BackgroundPush(student, output(push_every=4, hub_revision=branch), "transinv") as push:
        for step in (2, 4, 6):
            push.after_checkpoint(step)
            with torch.no_grad():
                for parameter in student.parameters():
                    parameter.add_(step == 4)
        until(lambda: hub_here.asked("POST", COMMIT))
    files = pushed_files(hub_here, revision=branch)
    assert titles(hub_here, revision=branch) == ["Student after 4 steps"] and pushed_files(hub_here) == {}
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    assert json.loads(files["config.json"])["hf_transinv"]["step"] == 4
    assert b"after 4 steps" in files["README.md"]
    seen = load(files["model.safetensors"])
    assert all(torch.equal(seen[name], tensor) for name, tensor in as_offered.items())


def test_a_newer_student_replaces_the_one_that_waits(hub_here, student):
    hub_here.misbehave("POST", "/api/repos/create", "slow", seconds=0.5)
    with BackgroundPush(student, output(), "transinv") as push:
        push.after_checkpoint(1)
        until(lambda: hub_here.pending() == [])
        push.after_checkpoint(2)
        push.after_checkpoint(3)
        until(lambda: len(hub_here.asked("POST", COMMIT)) == 2)
    assert titles(hub_here) == ["Student after 3 steps", "Student after 1 steps"]


def test_leaving_waits_for_the_push_in_progress_and_drops_the_next(hub_here, student):
    hub_here.misbehave("POST", COMMIT, "slow", seconds=0.5)
    with BackgroundPush(student, output(), "transinv") as push:
        push.after_checkpoint(1)
        until(lambda: hub_here.pending() == [])
        push.after_checkpoint(2)
    assert titles(hub_here) == ["Student after 1 steps"]
    assert not [thread for thread in threading.enumerate() if thread.name == "push"]


def test_pushes_that_fail_warn_once(hub_here, student, caplog):
    hub_here.misbehave("POST", COMMIT, 403, times=2)
    with caplog.at_level(logging.WARNING, "hf_transinv"), BackgroundPush(student, output(), "transinv") as push:
        for step in (1, 2, 3):
            push.after_checkpoint(step)
            until(lambda step=step: len(hub_here.asked("POST", COMMIT)) == step)
    assert titles(hub_here) == ["Student after 3 steps"]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "hf_transinv.hub.push"]
    assert warning.startswith("step 1: lab/student could not be pushed (403") and hub_here.token not in warning


def test_training_is_the_same_with_and_without_pushes(hub_here, tmp_path):
    # Every checkpoint stays: which of them was pushed depends on how fast the training went.
    kept = {"max_steps": 6, "save_steps": 2, "save_total_limit": 3}
    quiet, pushing = (tiny_trainer(tmp_path / name, **kept) for name in ("quiet", "pushing"))
    quiet.train()
    push = BackgroundPush(pushing.objective.players["student"], output(push_every=2), "transinv")
    pushing.setup = replace(pushing.setup, push=push)
    pushing.train()
    others = tensors_of(quiet)
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors_of(pushing).items())
    assert set(titles(hub_here)) <= {"Student after 2 steps", "Student after 4 steps"} and titles(hub_here)
    step = titles(hub_here)[0].split()[2]
    saved = load_file(tmp_path / "pushing" / "checkpoints" / f"step_{int(step):08d}" / "student.safetensors")
    seen = load(pushed_files(hub_here)["model.safetensors"])
    assert all(torch.equal(tensor, saved[f"network.{name}"]) for name, tensor in seen.items())


@pytest.mark.parametrize("field", [{"private": True}, {"hub_revision": "v1"}, {"push_every": 5}])
def test_how_to_push_needs_where_to(field):
    with pytest.raises(InputError, match="give that as well"):
        OutputConfig(**field)
