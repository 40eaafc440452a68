r"""Check a machine with a GPU in ten minutes, offline: tests, waits, speed, resume, losses, and some epochs.

python recipes/gpu_check.py --output_dir outputs/gpu_check
    every part, in the order of its worth, each within a limit of its own;
    what fails is noted, and the next one starts
python recipes/gpu_check.py --output_dir outputs/gpu_check
    the same command in another ten minutes: parts that are done stay, the
    others go on from what is there
python recipes/gpu_check.py --output_dir outputs/gpu_check --parts epochs \
    --local_hub DIR --dataset DATA/cifar100 \
    --teachers MODELS/wrn28_10_cifar10 MODELS/resnet18 ema
    rows of table 2 of TransInv, from and to their checkpoints, on data and
    teachers in folders
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("gpu_check", __doc__)
