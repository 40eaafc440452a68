"""Tiny checkpoints in the layouts that the one door opens, and a Hub that is a cache only."""

import huggingface_hub
import pytest
import timm


@pytest.fixture
def timm_folder(tmp_path):
    """A timm checkpoint in its own Hub layout."""
    network = timm.create_model("wrn10_1_cifar", num_classes=3)
    names = ["ant", "bee", "cat"]
    folder = tmp_path / "timm"
    timm.models.save_for_hf(network, folder, model_config={"label_names": names}, safe_serialization=True)
    return folder, network


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory):
    """A tiny ViT of transformers for 30 px images, with label names."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names = dict(enumerate(["ant", "bee", "cat", "dog"]))
    config = ViTConfig(image_size=30, patch_size=10, id2label=names, **sizes)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(
        size={"height": 30, "width": 30}, image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.3, 0.4)
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A Hub that can be reached through its cache only, which is how a machine without network sees it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(repo_id, folder, revision="main"):
        repository = tmp_path / "hub" / ("models--" + repo_id.replace("/", "--"))
        commit = "0123456789" * 4
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for file in folder.iterdir():
            (snapshot / file.name).write_bytes(file.read_bytes())
        (repository / "refs").mkdir()
        (repository / "refs" / revision).write_text(commit)

    return put
