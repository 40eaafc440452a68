r"""Compare methods: one student, one data set, one schedule; a table of rows x seeds from one YAML.

python recipes/compare.py
    the embedded default: digits, from the teacher that does not mind contrast
    and brightness
transinv compare --mixed_precision bf16 --config \
    recipes/configs/compare_transinv_table1.yaml --scale small \
    --output_dir outputs/table1
    stopped, it goes on with the same command and --resume_from latest; more
    --rows, --groups and --seeds may join then

comparison.md, comparison.json and figures/comparison.png are written anew
after every run; run.json holds every result whole.
`hf_transinv/comparison/plan_reader.py` says what a YAML may hold.
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("compare", __doc__)
