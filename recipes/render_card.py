"""Write the card of a finished run again, from its run.json alone.

python recipes/render_card.py OUT
    an output folder: OUT/student/README.md
python recipes/render_card.py model_cards/digits_elastic
    a folder in Hub layout, with run.json beside the weights: README.md there
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("render_card", __doc__)
