"""The Hub's JSON: who one is, repositories and what they hold, branches and tags, commits."""

import base64
import binascii
import json
from typing import Any
from urllib.parse import parse_qs

import yaml

from tests.loopback_hub.exchange import IN_API, Answer, Place, Request, as_json, route
from tests.loopback_hub.store import Commit, File, Refusal, is_lfs

_REVISION = r"/(?P<revision>[^/]+)"


def whoami(place: Place, request: Request) -> Answer:
    if request.token != "good":
        raise Refusal(401, "Invalid username or password.")
    token = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": "write"}}
    return as_json({"type": "user", "id": "0", "name": place.store.user, "orgs": [], "auth": token})


def validate_yaml(place: Place, request: Request) -> Answer:
    """Looks at a card's metadata: whether it is YAML, and a mapping."""
    opening, _, rest = request.json()["content"].partition("---\n")
    metadata, closing, _ = rest.partition("\n---")
    if opening.strip() or not closing:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        is_mapping = isinstance(yaml.safe_load(metadata), dict)
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    errors = [] if is_mapping else [{"message": "yaml metadata is not a mapping"}]
    return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def create(place: Place, request: Request) -> Answer:
    asked = request.json()
    kind, repo_id = asked.get("type") or "model", f"{asked.get('organization') or place.store.user}/{asked['name']}"
    place.namespace(request, repo_id)
    url = f"{place.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    if (kind, repo_id) in place.store.repositories:
        raise Refusal(409, f"You already created this {kind} repo", url=url)
    private = asked.get("visibility") == "private" or asked.get("private") is True
    place.store.create(kind, repo_id, private=private)
    return as_json({"url": url, "name": repo_id})


def delete(place: Place, request: Request) -> Answer:
    asked = request.json()
    kind, repo_id = asked.get("type") or "model", f"{asked.get('organization') or place.store.user}/{asked['name']}"
    place.repository(request, kind, repo_id, write=True)
    del place.store.repositories[kind, repo_id]
    return Answer()


def info(place: Place, request: Request, *, kind: str, repo_id: str, revision: str = "main") -> Answer:
    repository = place.repository(request, kind, repo_id)
    commit = repository.at(revision)
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
    if request.flag("blobs"):
        for sibling in siblings:
            entry = _entry(sibling["rfilename"], commit.files[sibling["rfilename"]])
            of_lfs = {"lfs": {**entry["lfs"], "sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
            sibling |= {"size": entry["size"], "blobId": entry["oid"]} | of_lfs
    about = {"id": repo_id, "author": repository.owner, "sha": commit.oid, "lastModified": commit.date}
    state = {"private": repository.private, "gated": "auto" if repository.gated else False, "disabled": False}
    return as_json({**about, **state, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})


def auth_check(place: Place, request: Request, *, kind: str, repo_id: str, write: str = "") -> Answer:
    place.open_files(request, place.repository(request, kind, repo_id, write=bool(write)))
    return as_json({})


def tree(place: Place, request: Request, *, kind: str, repo_id: str, revision: str, folder: str = "") -> Answer:
    commit = place.repository(request, kind, repo_id).at(revision)
    entries = _entries(commit)
    if folder and entries.get(folder, {}).get("type") != "directory":
        raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    start = f"{folder}/" if folder else ""
    below = [path for path in entries if path.startswith(start)]
    if not request.flag("recursive"):
        below = [path for path in below if "/" not in path[len(start) :]]
    return as_json([entries[path] for path in below])


def paths_info(place: Place, request: Request, *, kind: str, repo_id: str, revision: str) -> Answer:
    entries = _entries(place.repository(request, kind, repo_id).at(revision))
    return as_json([entries[path] for path in parse_qs(request.body.decode()).get("paths", []) if path in entries])


def refs(place: Place, request: Request, *, kind: str, repo_id: str) -> Answer:
    repository = place.repository(request, kind, repo_id)
    return as_json(
        {
            "branches": [_ref("heads", *item) for item in repository.branches.items()],
            "tags": [_ref("tags", *item) for item in repository.tags.items()],
            "converts": [],
            "pullRequests": [],
        }
    )


def commits(place: Place, request: Request, *, kind: str, repo_id: str, revision: str) -> Answer:
    repository = place.repository(request, kind, repo_id)
    authors = [{"user": repository.owner}]
    return as_json(
        [
            {"id": item.oid, "title": item.title, "message": item.description, "authors": authors, "date": item.date}
            for item in repository.history(revision)
        ]
    )


def create_branch(place: Place, request: Request, *, kind: str, repo_id: str, name: str) -> Answer:
    repository = place.repository(request, kind, repo_id, write=True)
    if name in repository.branches:
        raise Refusal(409, f"Reference already exists: refs/heads/{name}")
    repository.branches[name] = repository.at(request.json().get("startingPoint", "main")).oid
    return as_json({})


def delete_branch(place: Place, request: Request, *, kind: str, repo_id: str, name: str) -> Answer:
    repository = place.repository(request, kind, repo_id, write=True)
    if name == "main":
        raise Refusal(403, "Cannot delete the branch main")
    if repository.branches.pop(name, None) is None:
        raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return as_json({})


def create_tag(place: Place, request: Request, *, kind: str, repo_id: str, revision: str) -> Answer:
    repository = place.repository(request, kind, repo_id, write=True)
    name = request.json()["tag"]
    if name in repository.tags:
        raise Refusal(409, f"Tag reference exists already: refs/tags/{name}")
    repository.tags[name] = repository.at(revision).oid
    return as_json({})


def delete_tag(place: Place, request: Request, *, kind: str, repo_id: str, revision: str) -> Answer:
    repository = place.repository(request, kind, repo_id, write=True)
    if repository.tags.pop(revision, None) is None:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return as_json({})


def preupload(place: Place, request: Request, *, kind: str, repo_id: str, revision: str) -> Answer:
    repository = place.repository(request, kind, repo_id, write=True)
    there = repository.at(revision).files
    files = []
    for asked in request.json()["files"]:
        path = asked["path"]
        mode = "lfs" if is_lfs(path, asked["size"]) else "regular"
        oid = {"oid": there[path].etag} if path in there else {}
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
    return as_json({"files": files})


def commit(place: Place, request: Request, *, kind: str, repo_id: str, revision: str) -> Answer:
    """All lines are understood before the first one has an effect."""
    repository = place.repository(request, kind, repo_id, write=True)
    if request.flag("create_pr"):
        raise Refusal(501, "The loopback Hub has no pull requests")
    try:
        lines = [json.loads(line) for line in request.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        operations = [_operation(place, **line) for line in lines if line["key"] != "header"]
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise Refusal(400, f"Malformed commit: {type(error).__name__}") from error
    made = repository.commit(
        revision, operations, header["summary"], header.get("description", ""), header.get("parentCommit")
    )
    prefix = "datasets/" if kind == "dataset" else ""
    url = f"{place.endpoint}/{prefix}{repo_id}/commit/{made.oid}"
    return as_json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _operation(place: Place, key: str, value: dict[str, Any]) -> tuple[str, File | None]:
    path = value["path"]
    if key in ("deletedFile", "deletedFolder"):
        return path, None
    if key == "file":
        try:
            return path, File(base64.b64decode(value["content"], validate=True))
        except binascii.Error as error:
            raise Refusal(400, f"{path} is not base64") from error
    if key != "lfsFile":
        raise Refusal(400, f"Unknown operation {key}")
    if value["oid"] not in place.store.objects:
        raise Refusal(400, f"{path}: LFS pointer pointed to a file that does not exist")
    return path, File(place.store.objects[value["oid"]], is_lfs=True)


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Path -> what the Hub says of it, of all files and folders."""
    folders = {"/".join(parts[:depth]) for parts in map(_parts, commit.files) for depth in range(1, len(parts))}
    entries = {path: {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders}
    entries |= {path: _entry(path, file) for path, file in commit.files.items()}
    return dict(sorted(entries.items()))


def _parts(path: str) -> list[str]:
    return path.split("/")


def _entry(path: str, file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": len(file.content), "path": path}
    if file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.in_git)}
    return entry


def _ref(of: str, name: str, oid: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{of}/{name}", "targetCommit": oid}


ROUTES = [
    route("GET", r"/api/whoami-v2", whoami),
    route("POST", r"/api/validate-yaml", validate_yaml),
    route("POST", r"/api/repos/create", create),
    route("DELETE", r"/api/repos/delete", delete),
    route("GET", IN_API, info),
    route("GET", IN_API + "/revision" + _REVISION, info),
    route("GET", IN_API + r"/auth-check(?P<write>/write)?", auth_check),
    route("GET", IN_API + "/tree" + _REVISION + r"(?:/(?P<folder>.+))?", tree),
    route("POST", IN_API + "/paths-info" + _REVISION, paths_info),
    route("GET", IN_API + "/refs", refs),
    route("GET", IN_API + "/commits" + _REVISION, commits),
    route("POST", IN_API + r"/branch/(?P<name>[^/]+)", create_branch),
    route("DELETE", IN_API + r"/branch/(?P<name>[^/]+)", delete_branch),
    route("POST", IN_API + "/tag" + _REVISION, create_tag),
    route("DELETE", IN_API + "/tag" + _REVISION, delete_tag),
    route("POST", IN_API + "/preupload" + _REVISION, preupload),
    route("POST", IN_API + "/commit" + _REVISION, commit),
]
