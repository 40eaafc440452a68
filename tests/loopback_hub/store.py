"""What a Hub keeps: repositories with branches, tags and commits, named by their content as git names them.

All of it lies in memory. A commit is an immutable map from path to file; a branch moves to it in one assignment, so a
commit is there as a whole or not at all.
"""

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".png", ".jpg")
LFS_FROM = 10 * 2**20  # bytes; smaller files with other names are kept in git itself
_GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


class Refusal(Exception):
    """An answer of the Hub that is not the thing asked for.

    Attributes:
        status: HTTP status.
        message: what a person reads.
        headers: X-Error-Code, by which the client chooses its exception, and what else belongs to the answer.
        body: members of the JSON body besides ``error``.
    """

    def __init__(self, status: int, message: str, code: str | None = None, **body: object) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.body = body


@dataclass(frozen=True)
class File:
    """A file of a commit.

    Attributes:
        content: its bytes.
        is_lfs: whether git holds a pointer only and the bytes lie in the storage.
    """

    content: bytes
    is_lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def in_git(self) -> bytes:
        """What git holds: the content, or the pointer to it."""
        if not self.is_lfs:
            return self.content
        lines = (
            "version https://git-lfs.github.com/spec/v1",
            f"oid sha256:{self.sha256}",
            f"size {len(self.content)}",
        )
        return "".join(f"{line}\n" for line in lines).encode()

    @cached_property
    def oid(self) -> str:
        """Git's name of `in_git`."""
        return _git_name("blob", self.in_git)

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """A state of a repository.

    Attributes:
        oid: 40 hexadecimal digits.
        parent: oid of the commit before it; None for the first.
        title: first line of the message.
        description: the rest of the message.
        files: path -> file, all of them.
        date: ISO 8601, UTC.
    """

    oid: str
    parent: str | None
    title: str
    description: str
    files: Mapping[str, File]
    date: str


@dataclass
class Repository:
    """A model or a dataset.

    Attributes:
        kind: ``model`` or ``dataset``.
        id: NAMESPACE/NAME.
        private: whether only its namespace's owner knows of it.
        gated: whether its files, not its existence, are for its namespace's owner only.
        branches: name -> commit oid.
        tags: name -> commit oid.
        commits: oid -> commit.
    """

    kind: str
    id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._move("main", None, {".gitattributes": File(_GIT_ATTRIBUTES)}, "initial commit", "")

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a full oid leads to.

        Raises:
            Refusal: there is none.
        """
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self, revision: str) -> list[Commit]:
        """A revision's commits, newest first."""
        commits = [self.at(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def commit(
        self,
        branch: str,
        operations: Iterable[tuple[str, File | None]],
        title: str,
        description: str = "",
        parent: str | None = None,
    ) -> Commit:
        """Put a commit onto a branch.

        Args:
            branch: which must exist.
            operations: path and new file, or path of a file or folder and None, which deletes it; in their order.
            title: first line of the message.
            description: the rest of it.
            parent: the commit that the branch must stand at; None for wherever it stands.

        Raises:
            Refusal: no such branch, it stands elsewhere, or there is nothing where something is to be deleted.
        """
        if branch not in self.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.commits[self.branches[branch]]
        if parent is not None and parent != head.oid:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for path, file in operations:
            if file is not None:
                files[path] = file
                continue
            gone = [name for name in files if name == path or name.startswith(path.rstrip("/") + "/")]
            if not gone:
                raise Refusal(404, f"{path} does not exist on {branch}", "EntryNotFound")
            for name in gone:
                del files[name]
        return self._move(branch, head.oid, files, title, description)

    def _move(self, branch: str, parent: str | None, files: dict[str, File], title: str, description: str) -> Commit:
        lines = [f"{file.oid} {path}" for path, file in sorted(files.items())]
        oid = _git_name("commit", "\n".join([str(parent), title, description, *lines]).encode())
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        commit = Commit(oid, parent, title, description, MappingProxyType(files), date)
        self.commits[oid] = commit
        self.branches[branch] = oid
        return commit


class Store:
    """All that one Hub keeps. Whoever reads or writes holds `lock`.

    Attributes:
        user: the one user; namespaces of other names are other people's.
        repositories: (kind, id) -> repository.
        objects: sha256 -> bytes, of the storage that LFS files lie in.
        lock: one thread at a time.
    """

    def __init__(self, user: str) -> None:
        self.user = user
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.lock = threading.RLock()

    def find(self, kind: str, repo_id: str) -> Repository:
        """Raises Refusal when there is no such repository."""
        if (kind, repo_id) not in self.repositories:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return self.repositories[kind, repo_id]

    def create(self, kind: str, repo_id: str, *, private: bool = False, gated: bool = False) -> Repository:
        repository = Repository(kind, repo_id, private, gated)
        self.repositories[kind, repo_id] = repository
        return repository


def is_lfs(path: str, size: int) -> bool:
    """Where the Hub wants a file of that name and size (bytes): in the storage, or in git."""
    return size >= LFS_FROM or (size > 0 and path.endswith(LFS_SUFFIXES))


def _git_name(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()
