"""What the client makes of a Hub that does wrong: the errors it raises, what it tries again, what it does not see."""

import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_transinv.resolve.hub_errors import READ_FAILURES
from tests.loopback_hub.fixture import OLD_CLIENT, since_1

WEIGHTS = bytes(range(256)) * 16
IN_STORAGE = "/models/lab/vit/*"


@pytest.fixture
def vit_hub(hub_here):
    hub_here.put("lab/vit", {"model.safetensors": WEIGHTS, "config.json": b"{}"})
    return hub_here


@pytest.fixture
def waits(monkeypatch):
    """Seconds that the client meant to sleep."""
    seconds = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def download() -> bytes:
    return Path(hf_hub_download("lab/vit", "model.safetensors")).read_bytes()


def upload(data: bytes) -> None:
    HfApi().create_commit("lab/vit", [CommitOperationAdd("model.safetensors", data)], commit_message="New")


def cached_blobs(tmp_path: Path) -> list[Path]:
    blobs = (tmp_path / "hf_home").glob("hub/*/blobs/*")
    return [path for path in blobs if not (OLD_CLIENT and path.suffix == ".incomplete")]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "RepoNotFound", RepositoryNotFoundError),
        (403, None, HfHubHTTPError),
        (403, "GatedRepo", GatedRepoError),
        (404, "RepoNotFound", RepositoryNotFoundError),
        (404, "RevisionNotFound", RevisionNotFoundError),
        (404, "EntryNotFound", EntryNotFoundError),
        (409, None, HfHubHTTPError),
        (429, None, HfHubHTTPError),
        (500, None, HfHubHTTPError),
        (503, None, HfHubHTTPError),
    ],
)
def test_a_status_becomes_its_error(vit_hub, status, code, error):
    vit_hub.misbehave("GET", "/api/models/lab/vit", status, code=code)
    with pytest.raises(error, match=str(status)) as refused:
        HfApi().model_info("lab/vit")
    assert isinstance(refused.value, HfHubHTTPError)
    assert [entry.status for entry in vit_hub.requests] == [status]
    assert vit_hub.pending() == []
    assert HfApi().model_info("lab/vit").id == "lab/vit"


@since_1
def test_a_rate_limit_is_waited_for(vit_hub, waits):
    vit_hub.misbehave("GET", IN_STORAGE, 429, retry_after=2)
    assert download() == WEIGHTS
    assert waits == [3.0]
    assert [entry.status for entry in vit_hub.asked("GET", IN_STORAGE)] == [429, 200]


@since_1
def test_a_hub_that_is_down_is_asked_again_until_it_is_given_up(vit_hub, waits):
    vit_hub.misbehave("HEAD", "*/model.safetensors", 503, times=2)
    assert download() == WEIGHTS
    assert waits == [1]
    vit_hub.misbehave("HEAD", "*/config.json", 503, times=None)
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("lab/vit", "config.json")
    assert [entry.status for entry in vit_hub.asked("*", "*/config.json")] == [503] * 7


@since_1
def test_a_download_that_is_cut_goes_on_where_it_ended(vit_hub, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 256)
    vit_hub.misbehave("GET", IN_STORAGE, "cut", at=1024)
    assert download() == WEIGHTS
    parts = [(entry.status, entry.range) for entry in vit_hub.asked("GET", IN_STORAGE)]
    assert parts == [(200, None), (206, "bytes=1024-")]


@pytest.mark.parametrize("kind", ["cut", "lost"])
def test_a_download_that_is_always_cut_leaves_no_file(vit_hub, waits, tmp_path, kind):
    vit_hub.misbehave("GET", IN_STORAGE, kind, at=0, times=None)
    with pytest.raises(READ_FAILURES):
        download()
    assert cached_blobs(tmp_path) == []
    vit_hub.behave()
    assert download() == WEIGHTS


def test_a_file_that_is_too_short_is_refused(vit_hub, tmp_path):
    vit_hub.misbehave("GET", IN_STORAGE, "truncate", at=100)
    with pytest.raises(OSError, match=rf"should be of size {len(WEIGHTS)} but has size 100"):
        download()
    assert cached_blobs(tmp_path) == []


def test_the_client_takes_other_bytes_of_the_same_size(vit_hub):
    """Only a check of the sums finds them: over plain HTTP a download is checked by its size alone."""
    vit_hub.misbehave("GET", IN_STORAGE, "corrupt", at=7)
    assert download() == WEIGHTS[:7] + bytes([WEIGHTS[7] ^ 0xFF]) + WEIGHTS[8:]
    hf_hub_download("lab/vit", "config.json")
    if OLD_CLIENT:  # which sums nothing up
        return
    assert [found["path"] for found in HfApi().verify_repo_checksums("lab/vit").mismatches] == ["model.safetensors"]


def test_an_upload_that_is_cut_is_sent_again(vit_hub, waits):
    vit_hub.misbehave("PUT", IN_STORAGE, "cut")
    upload(b"new" * 1000)
    assert vit_hub.files("lab/vit")["model.safetensors"] == b"new" * 1000
    assert [entry.status for entry in vit_hub.asked("PUT", IN_STORAGE)] == [None, 200]


def test_an_upload_that_arrives_changed_is_refused(vit_hub):
    vit_hub.misbehave("PUT", IN_STORAGE, "corrupt")
    with pytest.raises(RuntimeError, match="Error while uploading") as refused:
        upload(b"new")
    assert isinstance(refused.value.__cause__, HfHubHTTPError)
    assert vit_hub.files("lab/vit")["model.safetensors"] == WEIGHTS


def test_a_commit_that_is_cut_off_leaves_nothing(vit_hub):
    before = vit_hub.commits("lab/vit")
    vit_hub.misbehave("POST", "*/commit/main", "cut")
    with pytest.raises(READ_FAILURES):
        upload(b"new")
    assert vit_hub.commits("lab/vit") == before
    upload(b"new")
    assert vit_hub.files("lab/vit")["model.safetensors"] == b"new"


def test_a_commit_whose_answer_is_lost_is_there(vit_hub):
    vit_hub.misbehave("POST", "*/commit/main", "lost")
    with pytest.raises(READ_FAILURES):
        upload(b"new")
    assert vit_hub.files("lab/vit")["model.safetensors"] == b"new"
    assert len(vit_hub.commits("lab/vit")) == 3


@since_1
def test_a_slow_hub_is_given_up_and_asked_again(vit_hub, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    vit_hub.misbehave("GET", IN_STORAGE, "slow", seconds=30)
    assert download() == WEIGHTS
    assert waits[0] == 1
    assert vit_hub.pending() == []


def test_bytes_trickle(vit_hub):
    vit_hub.misbehave("GET", IN_STORAGE, "slow", bytes_per_second=len(WEIGHTS) * 4)
    start = time.monotonic()
    assert download() == WEIGHTS
    assert time.monotonic() - start >= 0.2


def test_rules_count_what_they_concern(vit_hub):
    vit_hub.misbehave("GET", "/api/models/lab/*", 500, after=1)
    vit_hub.misbehave("*", "/api/models/lab/other", 503, times=None)
    HfApi().model_info("lab/vit")
    assert len(vit_hub.pending()) == 1
    with pytest.raises(HfHubHTTPError, match="500"):
        HfApi().model_info("lab/vit")
    assert vit_hub.pending() == []
    HfApi().model_info("lab/vit")
    with pytest.raises(ValueError, match="expected a status from 400 to 599 or one of cut, lost"):
        vit_hub.misbehave("GET", "*", "explode")
