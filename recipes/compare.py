r"""Compare methods: one student, one data set, one schedule; a table of rows x seeds from one YAML.

accelerate launch recipes/compare.py
    the embedded default: digits, from the teacher that does not mind contrast
    and brightness
accelerate launch --mixed_precision bf16 recipes/compare.py --config \
    recipes/configs/compare_transinv_table1.yaml --scale small \
    --output_dir outputs/table1
    stopped, it goes on with the same command and --resume_from latest; more
    --rows, --groups and --seeds may join then

comparison.md, comparison.json and figures/comparison.png are written anew
after every run; run.json holds every result whole.
`hf_transinv/comparison/plan_reader.py` says what a YAML may hold.
"""

from hf_transinv.commands.compare import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
