"""The console script `transinv`: starts hf_transinv/cli.py without importing its package.

Importing hf_transinv imports torch and timm, for it registers architectures; `transinv --help` need not wait for that.
"""

import importlib.util
from pathlib import Path


def main() -> None:
    """See `hf_transinv.cli.main`."""
    package = importlib.util.find_spec("hf_transinv")
    path = Path(package.submodule_search_locations[0]) / "cli.py"
    specification = importlib.util.spec_from_file_location("hf_transinv_cli", path)
    cli = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(cli)
    cli.main()
