"""Checkpoints: everything comes back, whole or not at all, and nothing in a file is executed."""

import contextlib
import hashlib
import itertools
import json
import os
import resource

import pytest
import torch
from torch import nn

from hf_transinv.config import OutputConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import output_folder
from hf_transinv.training.checkpointing import checkpoints, discard, load_state, save_state

TRAINING = {
    "step": 7,
    "generator": torch.arange(5, dtype=torch.uint8),
    "feeds": {"student": {"epoch": 1}},
    "scaler": None,
}


def modules(seed: int = 0, width: int = 3) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Conv2d(width, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    return {"student": student, "augmentation": nn.Linear(2, 2)}


def tensors(players: dict[str, nn.Module]) -> list[torch.Tensor]:
    return [tensor for module in players.values() for tensor in module.state_dict().values()]


@contextlib.contextmanager
def files_no_larger_than(size: int):
    """Writing beyond `size` bytes fails, as on a full disk, for Python, safetensors and torch alike."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def replace_file(path, content: bytes) -> None:
    """Change a file of a checkpoint together with its digest, as somebody who means harm would."""
    path.write_bytes(content)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["sha256"][path.name] = hashlib.sha256(content).hexdigest()
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def test_everything_comes_back_to_the_bit(tmp_path):
    saved, loaded = modules(), modules(seed=1)
    optimizer = torch.optim.AdamW(saved["student"].parameters())
    saved["student"](torch.rand(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    path = save_state(tmp_path, 7, saved, TRAINING | {"optimizer": optimizer.state_dict()}, keep=2)
    training = load_state(path, loaded)
    assert all(torch.equal(a, b) for a, b in zip(tensors(saved), tensors(loaded), strict=True))
    assert loaded["student"][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert training["feeds"] == TRAINING["feeds"] and torch.equal(training["generator"], TRAINING["generator"])
    for index, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, training["optimizer"]["state"][index][name]) for name, value in state.items())


def test_the_last_are_kept_and_listed_oldest_first(tmp_path):
    for step in (5, 10, 100, 90):
        save_state(tmp_path, step, modules(), TRAINING, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000090", "step_00000100"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000090", "step_00000100"]


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path):
    save_state(tmp_path, 5, modules(), TRAINING, keep=2)
    for left in (".step_00000010.part", ".step_00000001.gone"):
        (tmp_path / left).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000005"]
    save_state(tmp_path, 10, modules(), TRAINING, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000005", "step_00000010"]
    assert checkpoints(tmp_path / "nowhere") == []


class Killed(BaseException):
    """In the place of SIGKILL: nothing catches it."""


def test_what_is_removed_is_never_seen_half_removed(tmp_path, monkeypatch):
    for step in (5, 10):
        save_state(tmp_path, step, modules(), TRAINING, keep=2)
    unlink, removed = os.unlink, []

    def unlink_one_only(*arguments, **options):
        if removed:
            raise Killed
        removed.append(unlink(*arguments, **options))

    monkeypatch.setattr(os, "unlink", unlink_one_only)
    with pytest.raises(Killed):
        discard(tmp_path / "step_00000010")
    monkeypatch.undo()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000005"] and len(removed) == 1
    save_state(tmp_path, 10, modules(), TRAINING, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000005", "step_00000010"]


@pytest.mark.parametrize(("size", "file"), [(200, "safetensors"), (100_000, "training.pt"), (0, "anything")])
def test_a_write_that_fails_leaves_the_earlier_ones_alone(tmp_path, size, file):
    earlier = save_state(tmp_path, 5, modules(), TRAINING, keep=1)
    before = {path.name: path.read_bytes() for path in earlier.iterdir()}
    training = TRAINING | {"optimizers": torch.zeros(100_000)}
    with files_no_larger_than(size), pytest.raises(InputError, match="could not be written") as error:
        save_state(tmp_path, 10, modules(), training, keep=1)
    assert "step_00000010" in str(error.value) and f"the last good one is {earlier}" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]
    assert {path.name: path.read_bytes() for path in earlier.iterdir()} == before
    load_state(earlier, modules(seed=1))


@contextlib.contextmanager
def read_only(folder):
    """Nothing can be written to the folder, by root neither."""
    own = itertools.takewhile(lambda path: not path.stat().st_mode & 0o002, folder.parents)  # up to the one for all
    for path in (*own, *folder.rglob("*")):  # which are for their owner alone
        path.chmod(path.stat().st_mode | 0o055)
    folder.chmod(0o555)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_read_only_folder_is_named_and_left_as_it_is(tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    earlier = save_state(out, 5, modules(), TRAINING, keep=1)
    with (
        read_only(out),
        pytest.raises(InputError, match=r"step_00000010 could not .*Permission denied.*step_00000005"),
    ):
        save_state(out, 10, modules(), TRAINING, keep=1)
    assert [path.name for path in out.iterdir()] == ["step_00000005"]
    load_state(earlier, modules())
    expected = "output folder .*empty cannot be written: Permission denied"
    with read_only(empty), pytest.raises(InputError, match=expected):
        output_folder(OutputConfig(output_dir=str(empty)), "train")
    assert not any(empty.iterdir())


def test_the_first_checkpoint_of_all_fails_clearly_too(tmp_path):
    with files_no_larger_than(200), pytest.raises(InputError, match="there is no earlier one"):
        save_state(tmp_path / "checkpoints", 5, modules(), TRAINING, keep=1)
    assert checkpoints(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("name", ["student.safetensors", "augmentation.safetensors", "training.pt"])
def test_one_flipped_bit_is_noticed_and_the_file_named(tmp_path, name):
    older = save_state(tmp_path, 5, modules(), TRAINING, keep=2)
    path = save_state(tmp_path, 10, modules(), TRAINING, keep=2)
    content = bytearray((path / name).read_bytes())
    content[-20] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is damaged") as error:
        load_state(path, modules())
    assert str(error.value).endswith(f"; the last good one before it: --resume_from {older}")


def test_the_one_that_is_offered_instead_is_good(tmp_path):
    first, second, third = (save_state(tmp_path, step, modules(), TRAINING, keep=3) for step in (5, 10, 15))
    (third / "training.pt").unlink()
    (second / "student.safetensors").write_bytes(b"")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(InputError, match=f"training.pt is missing; the last good one before it: .*{first}$"):
        load_state(third, modules())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    (first / "manifest.json").write_text("")
    with pytest.raises(InputError, match=r"training\.pt is missing; there is no good one before it$"):
        load_state(third, modules())
    with pytest.raises(InputError, match="step_00000004: there is no such folder; there is no good one before it"):
        load_state(tmp_path / "step_00000004", modules())


def test_a_damaged_file_changes_no_module(tmp_path):
    path = save_state(tmp_path, 5, modules(), TRAINING, keep=2)
    (path / "training.pt").write_bytes(b"PK")
    loaded = modules(seed=1)
    before = [tensor.clone() for tensor in tensors(loaded)]
    with pytest.raises(InputError, match=r"training\.pt is damaged"):
        load_state(path, loaded)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(loaded), strict=True))


@pytest.mark.parametrize("name", ["student.safetensors", "training.pt", "manifest.json"])
def test_a_missing_file_is_named(tmp_path, name):
    older = save_state(tmp_path, 5, modules(), TRAINING, keep=2)
    path = save_state(tmp_path, 10, modules(), TRAINING, keep=2)
    (path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing.*--resume_from {older}"):
        load_state(path, modules())


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_manifest_is_noticed(tmp_path, content):
    path = save_state(tmp_path, 10, modules(), TRAINING, keep=2)
    (path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=f"checkpoint {path}: manifest.json is damaged"):
        load_state(path, modules())


def test_another_model_is_refused_by_name(tmp_path):
    path = save_state(tmp_path, 10, modules(), TRAINING, keep=2)
    with pytest.raises(InputError, match=r"(?s)does not fit this run.*size mismatch"):
        load_state(path, modules(width=5))
    with pytest.raises(InputError, match="does not fit this run: it has no ema"):
        load_state(path, modules() | {"ema": nn.Linear(1, 1)})


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    path = save_state(tmp_path / "checkpoints", 10, modules(), TRAINING, keep=2)
    torch.save(Harmful(str(tmp_path / "harm")), tmp_path / "evil.pt")
    replace_file(path / "training.pt", (tmp_path / "evil.pt").read_bytes())
    with pytest.raises(InputError, match=f"checkpoint {path} is damaged"):
        load_state(path, modules())
    assert not (tmp_path / "harm").exists()
