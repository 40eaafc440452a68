"""A Hub on this machine, for tests that push to one and load from one with the client that is installed.

    with LoopbackHub() as hub:
        hub.put("lab/pictures", {"data/train-0.parquet": parquet}, repo_type="dataset")
        hub.misbehave("GET", "*.parquet", "cut")
        succeed(PYTHON, RECIPE, "--dataset", "lab/pictures", cwd=folder, **hub.environment(folder))
        assert hub.files("lab/student")["config.json"]

Models and datasets, branches, tags, commits with regular and LFS files, private and gated repositories. Not here: Xet
(`environment` turns it off), LFS in parts, pull requests, Spaces, pages of long listings, git itself.
"""

from tests.loopback_hub.hub import LoopbackHub

__all__ = ["LoopbackHub"]
