"""A Hub on this machine for tests: what a test says to it, and what it asks it afterwards."""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.loopback_hub import api, files
from tests.loopback_hub.exchange import Place, respond
from tests.loopback_hub.faults import Fault, Faults
from tests.loopback_hub.store import Commit, File, Repository, Store, is_lfs
from tests.loopback_hub.wire import Listener, Logged


class LoopbackHub:
    """A Hub that speaks HTTP on 127.0.0.1 to the client as it is installed; use it as a context manager.

    Args:
        user: the one user, whose namespace is the only one that can be written to over the wire.

    Attributes:
        user: as above.
        token: the user's, and the only good one.
        endpoint: address for HF_ENDPOINT.
        requests: what was asked of the Hub and of its storage, in the order of the answers.
        strays: what was asked of other hosts by a process in `environment`; it was refused here.
    """

    def __init__(self, user: str = "lab") -> None:
        self.user = user
        self.token = f"hf_{secrets.token_hex(17)}"
        self.requests: list[Logged] = []
        self.strays: list[str] = []
        self._store = Store(user)
        self._faults = Faults()
        listen = partial(Listener, self.token, self._faults, self.requests, self.strays)
        self._hub, self._storage = listen(), listen()
        self.endpoint = self._hub.address
        # By another name of this machine: by it, not by its port, older clients tell the storage from the Hub.
        storage = f"http://localhost:{self._storage.server_port}"
        place = Place(self._store, self.endpoint, storage)
        self._hub.respond = partial(respond, place, api.ROUTES + files.ROUTES)
        self._storage.respond = partial(respond, place, files.STORAGE_ROUTES)

    def __enter__(self) -> Self:
        self._hub.open()
        self._storage.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.close()
        self._storage.close()

    def put(
        self,
        repo_id: str,
        content: Mapping[str, bytes] | Path,
        repo_type: str = "model",
        *,
        private: bool = False,
        gated: bool = False,
        revision: str = "main",
        message: str = "Put there by the test",
    ) -> str:
        """Add files in one commit, without the wire and its rights; returns the commit's oid.

        Args:
            repo_id: NAMESPACE/NAME of any namespace; created when it does not exist.
            content: path -> bytes, or a folder to take as it is.
            repo_type: ``model`` or ``dataset``.
            private: of a repository that is created: only the user, if the namespace is theirs, knows of it.
            gated: of a repository that is created: its files are for the owner of the namespace only.
            revision: branch; created from ``main`` when it does not exist.
            message: the commit's.
        """
        if isinstance(content, Path):
            paths = (path for path in sorted(content.rglob("*")) if path.is_file())
            content = {path.relative_to(content).as_posix(): path.read_bytes() for path in paths}
        with self._store.lock:
            if (repo_type, repo_id) not in self._store.repositories:
                self._store.create(repo_type, repo_id, private=private, gated=gated)
            repository = self.repository(repo_id, repo_type)
            repository.branches.setdefault(revision, repository.at("main").oid)
            added = {path: File(data, is_lfs(path, len(data))) for path, data in content.items()}
            self._store.objects |= {file.sha256: file.content for file in added.values() if file.is_lfs}
            return repository.commit(revision, added.items(), message).oid

    def tag(self, repo_id: str, name: str, revision: str = "main", repo_type: str = "model") -> None:
        with self._store.lock:
            repository = self.repository(repo_id, repo_type)
            repository.tags[name] = repository.at(revision).oid

    def repository(self, repo_id: str, repo_type: str = "model") -> Repository:
        """Raises Refusal when there is none."""
        return self._store.find(repo_type, repo_id)

    def repositories(self) -> list[str]:
        """Ids of everything there, models and datasets."""
        with self._store.lock:
            return sorted(repo_id for _, repo_id in self._store.repositories)

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Path -> bytes at a branch, tag or commit; ``.gitattributes``, which every repository has, included."""
        with self._store.lock:
            return {
                path: file.content for path, file in self.repository(repo_id, repo_type).at(revision).files.items()
            }

    def commits(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> list[Commit]:
        """Newest first; the last is the one that created the repository."""
        with self._store.lock:
            return self.repository(repo_id, repo_type).history(revision)

    def misbehave(
        self,
        method: str,
        path: str,
        kind: int | str,
        *,
        times: int | None = 1,
        after: int = 0,
        at: int | None = None,
        code: str | None = None,
        retry_after: int = 0,
        seconds: float = 0.0,
        bytes_per_second: float | None = None,
    ) -> None:
        """Do wrong from now on. Of several rules for one request the first one applies.

        Args:
            method: HTTP's, or ``*`` for any.
            path: a shell pattern for the whole path without its query, such as ``/lab/vit/resolve/*`` or
                ``*/model.safetensors``. Files of LFS come from the storage, whose paths are
                ``/models/USER/NAME/SHA256/FILE`` (GET) and ``/models/USER/NAME/SHA256`` (PUT).
            kind: a status from 400 to 599, or one of `faults.KINDS`.
            times: how many such requests it happens to; None for all.
            after: how many such requests pass unharmed first.
            at: the byte of the body at which it happens; None for its middle. For ``cut``, ``corrupt``, ``truncate``,
                which only concern requests whose body, or whose answer's, has any bytes.
            code: X-Error-Code that goes with a status.
            retry_after: seconds, with status 429.
            seconds: before the answer, for any kind.
            bytes_per_second: of bodies, for any kind.

        Raises:
            ValueError: there is no such kind.
        """
        rule = Fault(method, path, kind, times, after, at, code, retry_after, seconds, bytes_per_second)
        self._faults.rules.append(rule)

    def behave(self) -> None:
        """Forget all rules."""
        self._faults.rules.clear()

    def pending(self) -> Sequence[Fault]:
        """Rules that have not happened as many times as they were to: a test that expects none proves itself."""
        return self._faults.left()

    def asked(self, method: str, pattern: str) -> list[Logged]:
        """The requests so far of a method (``*`` for any) and of a shell pattern for the path."""
        rule = Fault(method, pattern, "slow")
        return [entry for entry in self.requests if rule.concerns(entry.method, entry.path, bears_body=True)]

    def environment(self, folder: Path, *, token: bool = True, **variables: str) -> dict[str, str]:
        """What to set for a process so that this is its Hub and it reaches no other host by HTTP.

        Args:
            folder: caches lie below it.
            token: whether the process has the user's token; else it has none.
            variables: win over the rest.
        """
        home = folder / "hf_home"
        hub = {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.token if token else "", "HUGGING_FACE_HUB_TOKEN": ""}
        caches = {"HF_HOME": home, "HF_HUB_CACHE": home / "hub", "HF_DATASETS_CACHE": home / "datasets"}
        caches |= {"HF_TOKEN_PATH": home / "token", "HF_ASSETS_CACHE": home / "assets"}
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "0")
        silent = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        # Every other host is reached through this one, which refuses: without a look-up of its name, and at once.
        proxies = {"http_proxy": self.endpoint, "https_proxy": self.endpoint, "all_proxy": ""}
        proxies["no_proxy"] = "127.0.0.1,localhost"
        proxies |= {name.upper(): value for name, value in proxies.items()}
        paths = {name: str(path) for name, path in caches.items()}
        return hub | paths | offline | silent | proxies | variables
