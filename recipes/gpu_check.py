"""Check a machine with a GPU in ten minutes, offline: tests, waits, speed, resume, losses, and some epochs.

python recipes/gpu_check.py --output_dir outputs/gpu_check
    every part, in the order of its worth, each within a limit of its own; what fails is noted, and the next one starts
python recipes/gpu_check.py --output_dir outputs/gpu_check --parts epochs --minutes 9
    go on with the epochs of the last part, from their checkpoint
"""

from hf_transinv.commands.gpu_check import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
