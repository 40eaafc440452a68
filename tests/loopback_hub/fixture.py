"""Fixtures: a fresh Hub, and one that the client in this very process uses. Import them where they are needed."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.loopback_hub.hub import LoopbackHub

try:
    from huggingface_hub import close_session
except ImportError:  # before 1.0
    from huggingface_hub.utils import reset_sessions as close_session

OLD_CLIENT = huggingface_hub.__version__.startswith("0.")
"""It stands on requests, and tries fewer things again than the client does since 1.0."""
since_1 = pytest.mark.skipif(OLD_CLIENT, reason="what the client does since huggingface_hub 1.0")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def hub_here(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """The client reads its environment when it is imported, which has happened: so its constants are set too."""
    for name, value in hub.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    constants = huggingface_hub.constants
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Before 1.0 the client has a copy of its own.
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf_home" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf_home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)  # behind huggingface_hub.upload_file
    # The session holds the proxies of the environment that it was opened in.
    close_session()
    yield hub
    close_session()


@pytest.fixture
def hub_of_datasets(hub_here: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """`hub_here` that `datasets` uses too; it, too, has read its environment when it was imported."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub_here.endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    huggingface_hub.HfFileSystem.clear_instance_cache()
    return hub_here
