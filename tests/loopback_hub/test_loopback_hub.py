"""The loopback Hub and the client as it is installed: what the one keeps is what the other pushed and loads."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_transinv.resolve.hub_errors import READ_FAILURES
from tests.loopback_hub.fixture import OLD_CLIENT

WEIGHTS = bytes(range(256)) * 16
CONTENT = {"README.md": b"---\nlicense: mit\n---\nA student.", "a/config.json": b"{}", "model.safetensors": WEIGHTS}


@pytest.fixture
def folder(tmp_path):
    for path, data in CONTENT.items():
        (tmp_path / "pushed" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pushed" / path).write_bytes(data)
    return tmp_path / "pushed"


def own(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path != ".gitattributes"}


def read(folder: str) -> dict[str, bytes]:
    return own({p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()})


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_a_pushed_folder_is_kept_and_comes_back(hub_here, folder, repo_type):
    api = HfApi()
    assert api.whoami()["name"] == "lab"
    url = api.create_repo("lab/vit", repo_type=repo_type)
    assert (url.repo_id, url.repo_type) == ("lab/vit", repo_type)
    pushed = api.upload_folder(repo_id="lab/vit", folder_path=folder, repo_type=repo_type, commit_message="First")
    assert own(hub_here.files("lab/vit", repo_type=repo_type)) == CONTENT
    assert [commit.title for commit in hub_here.commits("lab/vit", repo_type=repo_type)] == ["First", "initial commit"]
    assert read(snapshot_download("lab/vit", repo_type=repo_type, revision=pushed.oid)) == CONTENT
    assert [entry.token for entry in hub_here.asked("PUT", "*")] == ["none"]  # the storage, for the weights alone
    assert hub_here.token not in repr(hub_here.requests)


def test_an_unchanged_folder_makes_no_commit(hub_here, folder):
    hub_here.put("lab/vit", folder)
    HfApi().upload_folder(repo_id="lab/vit", folder_path=folder)
    assert len(hub_here.commits("lab/vit")) == 2
    assert not hub_here.asked("PUT", "*")
    assert not hub_here.asked("POST", "*/commit/*")


def test_one_commit_adds_and_deletes(hub_here):
    hub_here.put("lab/vit", CONTENT | {"old/x.txt": b"x", "old/y.txt": b"y"})
    operations = [
        CommitOperationDelete("README.md"),
        CommitOperationDelete("old/", is_folder=True),
        CommitOperationAdd("new.parquet", b"rows"),
        CommitOperationAdd("empty.bin", b""),
    ]
    HfApi().create_commit("lab/vit", operations, commit_message="Change", commit_description="Why")
    left = {path: data for path, data in CONTENT.items() if path != "README.md"}
    assert own(hub_here.files("lab/vit")) == left | {"new.parquet": b"rows", "empty.bin": b""}
    assert own(hub_here.files("lab/vit", hub_here.commits("lab/vit")[1].oid)).keys() == CONTENT.keys() | {
        "old/x.txt",
        "old/y.txt",
    }
    newest = HfApi().list_repo_commits("lab/vit")[0]
    assert (newest.title, newest.message, newest.authors) == ("Change", "Why", ["lab"])


def test_a_commit_onto_another_state_is_refused(hub_here):
    first = hub_here.put("lab/vit", CONTENT)
    second = hub_here.put("lab/vit", {"a/config.json": b"[]"})
    with pytest.raises(HfHubHTTPError, match="412"):
        HfApi().create_commit("lab/vit", [CommitOperationAdd("b", b"")], commit_message="Late", parent_commit=first)
    with pytest.raises(EntryNotFoundError):
        HfApi().delete_file("nothing.txt", "lab/vit")
    assert hub_here.commits("lab/vit")[0].oid == second


def test_repositories_are_created_once_in_ones_own_namespace_and_deleted(hub_here):
    api = HfApi()
    api.create_repo("vit", private=True)
    assert hub_here.repository("lab/vit").private
    assert api.create_repo("lab/vit", exist_ok=True).repo_id == "lab/vit"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("lab/vit")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("elsewhere/vit")
    with pytest.raises(HfHubHTTPError, match="401"):
        api.create_repo("lab/other", token=False)
    api.delete_repo("lab/vit")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("lab/vit")
    assert hub_here.repositories() == []


def test_names_are_those_that_git_gives(hub_here, folder):
    hub_here.put("lab/vit", folder)
    command = ["git", "hash-object", "a/config.json", "README.md"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    entries = {entry.path: entry for entry in HfApi().get_paths_info("lab/vit", ["a/config.json", "README.md"])}
    assert [entries[path].blob_id for path in ("a/config.json", "README.md")] == said
    snapshot_download("lab/vit")
    if OLD_CLIENT:  # which sums nothing up
        return
    checked = HfApi().verify_repo_checksums("lab/vit")
    assert (checked.checked_count, checked.mismatches, checked.missing_paths) == (4, [], [])


def test_what_is_there_is_listed(hub_here):
    oid = hub_here.put("lab/vit", CONTENT)
    hub_here.tag("lab/vit", "v1")
    api = HfApi()
    assert sorted(api.list_repo_files("lab/vit")) == sorted([".gitattributes", *CONTENT])
    assert [entry.path for entry in api.list_repo_tree("lab/vit", "a")] == ["a/config.json"]
    assert {entry.path for entry in api.list_repo_tree("lab/vit")} == {"a", *CONTENT, ".gitattributes"} - {
        "a/config.json"
    }
    info = api.model_info("lab/vit", revision="v1", files_metadata=True)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings}
    assert (info.sha, info.private, info.gated, sizes["model.safetensors"]) == (oid, False, False, len(WEIGHTS))
    refs = api.list_repo_refs("lab/vit")
    assert [(ref.name, ref.target_commit) for ref in refs.branches + refs.tags] == [("main", oid), ("v1", oid)]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("lab/vit", "nowhere"))


def test_branch_tag_and_commit_each_give_their_own_state(hub_here):
    api = HfApi()
    first = hub_here.put("lab/vit", {"config.json": b"1"})
    api.create_tag("lab/vit", tag="v1")
    api.create_branch("lab/vit", branch="pr/next")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="config.json", repo_id="lab/vit", revision="pr/next")
    states = {"main": b"1", "v1": b"1", first: b"1", "pr/next": b"2"}
    for revision, data in states.items():
        assert read(snapshot_download("lab/vit", revision=revision)) == {"config.json": data}
        assert Path(hf_hub_download("lab/vit", "config.json", revision=revision)).read_bytes() == data
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("lab/vit", tag="v1")
    api.delete_branch("lab/vit", branch="pr/next")
    api.delete_tag("lab/vit", tag="v1")
    for revision in ("pr/next", "v1", "0" * 40):
        with pytest.raises(RevisionNotFoundError):
            api.model_info("lab/vit", revision=revision)


@pytest.mark.parametrize("name", ["model.safetensors", "a/config.json"])
def test_a_cached_file_costs_one_head(hub_here, name):
    oid = hub_here.put("lab/vit", CONTENT)
    assert Path(hf_hub_download("lab/vit", name)).read_bytes() == CONTENT[name]
    hub_here.requests.clear()
    hf_hub_download("lab/vit", name)
    assert [entry.method for entry in hub_here.requests] == ["HEAD"]
    hf_hub_download("lab/vit", name, revision=oid)
    assert len(hub_here.requests) == 1


def test_what_is_missing_has_its_own_error(hub_here):
    hub_here.put("lab/vit", CONTENT)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("lab/vit", "nothing.txt")
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("lab/vit", revision="nowhere")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("lab/vit", "README.md", repo_type="dataset")


@pytest.mark.parametrize("repo_id", ["lab/secret", "lab/missing", "elsewhere/secret"])
def test_private_and_missing_look_the_same_to_those_without_right(hub_here, repo_id):
    hub_here.put("lab/secret", CONTENT, private=True)
    hub_here.put("elsewhere/secret", CONTENT, private=True)
    for ask in (lambda token: HfApi().model_info(repo_id, token=token), _download(repo_id)):
        with pytest.raises(RepositoryNotFoundError, match="401") as refused:
            ask(False)
        assert not isinstance(refused.value, GatedRepoError)
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as refused:
            ask("hf_wrong")
        assert not isinstance(refused.value, RepositoryNotFoundError)
        if repo_id == "lab/secret":
            ask(None)
        else:
            with pytest.raises(RepositoryNotFoundError, match="404"):
                ask(None)


def _download(repo_id):
    return lambda token: hf_hub_download(repo_id, "README.md", token=token)


def test_gated_files_are_for_those_with_access(hub_here):
    for repo_id in ("lab/gated", "elsewhere/gated"):
        hub_here.put(repo_id, CONTENT, gated=True)
        assert HfApi().model_info(repo_id, token=False).gated == "auto"  # its existence is no secret
        with pytest.raises(GatedRepoError, match="401"):
            _download(repo_id)(False)
        with pytest.raises(GatedRepoError, match="401"):
            snapshot_download(repo_id, token=False)
    with pytest.raises(GatedRepoError, match="403"):
        _download("elsewhere/gated")(None)
    assert Path(_download("lab/gated")(None)).read_bytes() == CONTENT["README.md"]


def test_a_card_that_is_not_yaml_is_refused(hub_here):
    hub_here.put("lab/vit", {})
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        HfApi().upload_file(path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md", repo_id="lab/vit")
    HfApi().upload_file(path_or_fileobj=CONTENT["README.md"], path_in_repo="README.md", repo_id="lab/vit")
    assert ModelCard.load("lab/vit").data.license == "mit"


def test_many_clients_at_once(hub_here):
    hub_here.put("lab/vit", CONTENT)
    api = HfApi()

    def push_and_load(number: int) -> bytes:
        name = f"{number}.safetensors"
        api.upload_file(path_or_fileobj=WEIGHTS + bytes([number]), path_in_repo=name, repo_id="lab/vit")
        return Path(hf_hub_download("lab/vit", name)).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(push_and_load, range(8)))
    assert loaded == [WEIGHTS + bytes([number]) for number in range(8)]
    assert len(hub_here.commits("lab/vit")) == 2 + 8
    assert len(own(hub_here.files("lab/vit"))) == len(CONTENT) + 8


def test_other_hosts_are_not_reached(hub_here):
    assert get_session().get("http://elsewhere.invalid/x").status_code == 403
    with pytest.raises(READ_FAILURES):
        get_session().get("https://elsewhere.invalid/y")
    assert hub_here.strays == ["GET http://elsewhere.invalid/x", "CONNECT elsewhere.invalid:443"]
    assert hub_here.requests == []
