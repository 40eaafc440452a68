r"""How fast is a turn, and how fast could it be? Ratios within one run, for a student, a batch and a device.

python recipes/benchmark.py
    everything, for WRN-16-2 at 32 px: about ten minutes on two cores
transinv benchmark --mixed_precision bf16 \
    --sections turns --methods transinv augmix --student resnet50.a1_in1k \
    --image_size 224 --num_classes 1000 --output turns.json
    turns of plain training, of TransInv with 1, 3 and 5 teachers and of
    AugMix, beside the least they can cost
python recipes/benchmark.py --sections launches
    kernels, copies from the host and waits of a turn on a GPU, for every
    method: counted, on any machine
python recipes/benchmark.py --sections corruptions
    images a second of each corruption, one thread and two
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("benchmark_report", __doc__)
