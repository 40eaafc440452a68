"""Write the card of a finished run again, from its run.json alone.

transinv card OUT
    an output folder: OUT/student/README.md, and the figures that it shows beside it
transinv card model_cards/digits_elastic
    a folder in Hub layout, with run.json beside the weights: README.md there
"""

import argparse
from pathlib import Path

from hf_transinv.errors import InputError
from hf_transinv.files import atomic_write_text
from hf_transinv.hub.card import render_card
from hf_transinv.hub.card_figures import shown_figures
from hf_transinv.hub.export import copy_figures
from hf_transinv.hub.recorded_run import read_run
from hf_transinv.record import RunRecord


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with run.json")
    parser.add_argument("--repo_id", help="USER/NAME, when the card is for that repository on the Hub")
    folder, repo_id = (arguments := parser.parse_args()).folder, arguments.repo_id
    run = RunRecord.read(folder)
    if (folder / "student").is_dir():
        path, card = folder / "student" / "README.md", render_card(run, repo_id=repo_id)
        copy_figures([folder / figure for figure in shown_figures(read_run(run))], folder / "student")
    elif (folder / "config.json").is_file():
        path, card = folder / "README.md", render_card(run, repo_id=repo_id, folder=folder.resolve().name)
    else:
        raise InputError(f"{folder} has neither a student/ nor a config.json of one: the run is not finished")
    atomic_write_text(path, card)
    print(path)
