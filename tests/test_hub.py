"""Publishing without a Hub: no token is noticed before training, an unreachable Hub costs nothing that lies here."""

import huggingface_hub
import pytest

from hf_transinv.errors import InputError
from hf_transinv.hub import check_token, push_run


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
def finished_run(tmp_path):
    folder = tmp_path / "out"
    for name in ("student/config.json", "student/model.safetensors", "figures/selection.png", "run.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_no_token_is_refused(no_token):
    with pytest.raises(InputError, match=r"token: run `hf auth login` or set HF_TOKEN"):
        check_token()


def test_a_token_of_the_environment_is_enough(no_token, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    check_token()


def test_an_unreachable_hub_leaves_the_folder_complete(unreachable, finished_run):
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"user/name could not be pushed.*is complete and unchanged"):
        push_run(finished_run, "user/name")
    assert {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()} == before


def test_a_name_that_is_no_repository_is_refused(unreachable, finished_run):
    with pytest.raises(InputError, match=r"a/b/c could not be pushed"):
        push_run(finished_run, "a/b/c")
