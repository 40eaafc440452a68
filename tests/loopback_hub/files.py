"""The bytes: /resolve of the Hub, git LFS's batch of uploads, and the storage that LFS files lie in.

The storage has an address of its own, as on the real Hub: the client then reads a file's size and checksum off the
redirect and leaves its token behind. An address there is signed, so a request with a token besides is refused.
"""

import hashlib
from urllib.parse import quote

from tests.loopback_hub.exchange import IN_WEB, Answer, Place, Request, as_json, route
from tests.loopback_hub.store import Refusal

_IN_STORAGE = r"/(?P<kind>model|dataset)s/(?P<repo_id>[^/]+/[^/]+)/(?P<sha256>[0-9a-f]{64})(?:/(?P<path>.+))?"


def resolve(place: Place, request: Request, *, repo_id: str, revision: str, path: str, kind: str = "model") -> Answer:
    repository = place.repository(request, kind, repo_id)
    place.open_files(request, repository)
    commit = repository.at(revision)
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        refusal = Refusal(404, "Entry not found", "EntryNotFound")
        refusal.headers |= headers
        raise refusal
    file = commit.files[path]
    headers["ETag"] = f'"{file.etag}"'
    if not file.is_lfs:
        return Answer(file.content, 200, headers, is_file=True)
    headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
    headers["Location"] = f"{place.storage}/{kind}s/{repo_id}/{file.sha256}/{quote(path)}"
    return Answer(b"", 302, headers)


def batch(place: Place, request: Request, *, repo_id: str, kind: str = "model") -> Answer:
    place.repository(request, kind, repo_id, write=True)
    prefix = "datasets/" if kind == "dataset" else ""
    verify = {"href": f"{place.endpoint}/{prefix}{repo_id}.git/info/lfs/verify"}
    objects = []
    for asked in request.json()["objects"]:
        entry = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in place.store.objects:
            upload = {"href": f"{place.storage}/{kind}s/{repo_id}/{asked['oid']}"}
            entry["actions"] = {"upload": upload, "verify": verify}
        objects.append(entry)
    return as_json({"transfer": "basic", "objects": objects})


def verify(place: Place, request: Request, *, repo_id: str, kind: str = "model") -> Answer:
    place.repository(request, kind, repo_id, write=True)
    asked = request.json()
    if len(place.store.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refusal(400, f"{asked['oid']} was not uploaded")
    return as_json({})


def download(place: Place, request: Request, *, kind: str, repo_id: str, sha256: str, path: str = "") -> Answer:
    _refuse_token(request)
    if sha256 not in place.store.objects:
        raise Refusal(404, "The specified key does not exist.")
    return Answer(place.store.objects[sha256], 200, {"ETag": f'"{sha256}"'}, is_file=True)


def upload(place: Place, request: Request, *, kind: str, repo_id: str, sha256: str) -> Answer:
    _refuse_token(request)
    if hashlib.sha256(request.body).hexdigest() != sha256:
        raise Refusal(400, "The SHA256 you specified did not match the calculated checksum.")
    place.store.objects[sha256] = request.body
    return Answer(headers={"ETag": f'"{sha256}"'})


def _refuse_token(request: Request) -> None:
    if request.token != "none":
        raise Refusal(400, "Only one auth mechanism allowed: a signed address needs no Authorization.")


ROUTES = [
    route("GET", IN_WEB + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
    route("POST", IN_WEB + r"\.git/info/lfs/objects/batch", batch),
    route("POST", IN_WEB + r"\.git/info/lfs/verify", verify),
]
STORAGE_ROUTES = [
    route("GET", _IN_STORAGE, download),
    route("PUT", _IN_STORAGE.removesuffix(r"(?:/(?P<path>.+))?"), upload),
]
