"""datasets, timm and transformers in processes of their own, with nothing but an environment to lead them."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

READ_DATASETS = """
import json
from datasets import Dataset, load_dataset
rows = [list(load_dataset("lab/rows", split="train", streaming=streaming)) for streaming in (True, False)]
pictures = [load_dataset("lab/pictures", split="train", streaming=streaming) for streaming in (True, False)]
reds = [sorted((row["image"].getpixel((0, 0))[0], row["label"]) for row in split) for split in pictures]
Dataset.from_dict({"x": [1, 2]}).push_to_hub("lab/pushed", private=True)
print(json.dumps([rows, [split.features["label"].names for split in pictures], reds]))
"""

PUSH_AND_LOAD_A_MODEL = """
import json, sys
from pathlib import Path
import timm, torch
from huggingface_hub import HfApi
from transformers import AutoModelForImageClassification
sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
pushed = timm.create_model("test_vit", num_classes=3, **sizes).eval()
folder = Path("vit")
timm.models.save_for_hf(pushed, folder, model_args=sizes, safe_serialization=True)
config = json.loads((folder / "config.json").read_text())
config["model_args"].pop("num_classes")  # transformers gives it a second time
(folder / "config.json").write_text(json.dumps(config))
HfApi().create_repo("lab/vit", private=True)
HfApi().upload_folder(repo_id="lab/vit", folder_path=folder)
images = torch.rand(2, 3, 32, 32)
by_timm = timm.create_model("hf-hub:lab/vit", pretrained=True).eval()
by_transformers = AutoModelForImageClassification.from_pretrained("lab/vit").eval()
print(torch.equal(pushed(images), by_timm(images)))
print(torch.equal(pushed(images), by_transformers(images).logits))
"""


def run(hub, code, folder):
    environment = os.environ | hub.environment(folder, OMP_NUM_THREADS="1")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


def png(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def parquet(columns: dict[str, list[int]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def test_datasets_reads_and_writes(hub, tmp_path):
    hub.put("lab/rows", {"data/train-00000-of-00001.parquet": parquet({"x": [3, 1, 2]})}, "dataset")
    pictures = {
        f"train/{name}/{index}.png": png(10 * label + index) for label, name in enumerate("ab") for index in (0, 1)
    }
    hub.put("lab/pictures", pictures, "dataset", private=True)
    rows, names, reds = json.loads(run(hub, READ_DATASETS, tmp_path).splitlines()[-1])
    assert rows == [[{"x": 3}, {"x": 1}, {"x": 2}]] * 2
    assert names == [["a", "b"]] * 2
    assert reds == [[[0, 0], [1, 0], [10, 1], [11, 1]]] * 2
    (shard,) = (path for path in hub.files("lab/pushed", repo_type="dataset") if path.endswith(".parquet"))
    written = hub.files("lab/pushed", repo_type="dataset")[shard]
    assert pq.read_table(io.BytesIO(written)).to_pydict() == {"x": [1, 2]}
    assert hub.repository("lab/pushed", "dataset").private
    assert any(entry.range for entry in hub.requests)
    assert hub.strays == []


def test_timm_and_transformers_load_what_was_pushed(hub, tmp_path):
    assert run(hub, PUSH_AND_LOAD_A_MODEL, tmp_path).split() == ["True", "True"]
    assert hub.files("lab/vit")["model.safetensors"] == (tmp_path / "vit" / "model.safetensors").read_bytes()
    assert hub.strays == []
