"""Requests and answers of a Hub, without the wire: who asks, what for, and which function answers."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

from tests.loopback_hub.store import Refusal, Repository, Store

Token = Literal["good", "bad", "none"]
# How a repository is named below /api and in the addresses of its files.
IN_API = r"/api/(?P<kind>model|dataset)s/(?P<repo_id>[^/]+/[^/]+)"
IN_WEB = r"/(?:(?P<kind>dataset)s/)?(?P<repo_id>[^/]+/[^/]+?)"


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        method: HTTP's.
        path: percent-encoded, without the query.
        query: the part after the question mark.
        token: what the Authorization header is worth.
        body: all of it.
    """

    method: str
    path: str
    query: str = ""
    token: Token = "none"
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    def flag(self, name: str) -> bool:
        return parse_qs(self.query).get(name, [""])[0].lower() in ("1", "true")


@dataclass
class Answer:
    """What is answered.

    Attributes:
        body: all of it, also for HEAD.
        status: HTTP's.
        headers: besides those that follow from the body.
        is_file: whether a part of it may be asked for.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    is_file: bool = False


def as_json(value: object, status: int = 200, headers: Mapping[str, str] = {}) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})


def refuse(refusal: Refusal) -> Answer:
    return as_json({"error": refusal.message, **refusal.body}, refusal.status, refusal.headers)


@dataclass
class Place:
    """What the functions that answer have in common.

    Attributes:
        store: everything kept.
        endpoint: address of the Hub.
        storage: address of the storage of LFS files, on a host of another name.
    """

    store: Store
    endpoint: str
    storage: str

    def repository(self, request: Request, kind: str, repo_id: str, *, write: bool = False) -> Repository:
        """The repository if whoever asks may know of it, and write to it where `write`.

        Raises:
            Refusal: 404 to the user and 401 to others for what is missing or private: the two cannot be told apart.
        """
        is_owner = request.token == "good" and repo_id.split("/")[0] == self.store.user
        repository = self.store.repositories.get((kind, repo_id))
        if repository is None or (repository.private and not is_owner):
            raise Refusal(404 if request.token == "good" else 401, "Repository not found", "RepoNotFound")
        if write and not is_owner:
            self.namespace(request, repo_id)
        return repository

    def namespace(self, request: Request, repo_id: str) -> None:
        """Raises Refusal when whoever asks may not write there."""
        if request.token != "good":
            raise Refusal(401, "Invalid username or password.")
        if repo_id.split("/")[0] != self.store.user:
            raise Refusal(403, f"You don't have the rights to write to the namespace of {repo_id}")

    def open_files(self, request: Request, repository: Repository) -> None:
        """Raises Refusal when the repository is gated and whoever asks has no access."""
        if not repository.gated or (request.token == "good" and repository.owner == self.store.user):
            return
        if request.token == "none":
            message = f"Access to {repository.kind} {repository.id} is restricted. You must have access to it and be "
            raise Refusal(401, message + "authenticated to access it. Please log in.", "GatedRepo")
        message = f"Access to {repository.kind} {repository.id} is restricted and you are not in the authorized list."
        raise Refusal(403, message, "GatedRepo")


Function = Callable[..., Answer]
Routes = list[tuple[str, re.Pattern[str], Function]]


def route(method: str, pattern: str, function: Function) -> tuple[str, re.Pattern[str], Function]:
    """One line of a table: the pattern's named groups become arguments of the function."""
    return method, re.compile(pattern), function


def respond(place: Place, routes: Routes, request: Request) -> Answer:
    """The answer of the first route that the request is for; a bad token is worse than none, whatever is asked."""
    if request.token == "bad":
        return refuse(Refusal(401, "Invalid credentials in Authorization header"))
    method = "GET" if request.method == "HEAD" else request.method
    for of_method, pattern, function in routes:
        match = pattern.fullmatch(request.path)
        if match is None or of_method != method:
            continue
        arguments = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
        with place.store.lock:
            try:
                return function(place, request, **arguments)
            except Refusal as refusal:
                return refuse(refusal)
    return as_json({"error": "Sorry, we can't find the page you are looking for."}, 404)
