"""The console script `transinv`: starts hf_transinv/commands/cli.py without importing its package.

Importing hf_transinv imports torch and timm, for it registers architectures; `transinv --help` need not wait for that.
"""

import runpy
from pathlib import Path


def main() -> None:
    """See `hf_transinv.commands.cli.main`."""
    runpy.run_path(str(Path(__file__).parent / "hf_transinv" / "commands" / "cli.py"), run_name="__main__")
