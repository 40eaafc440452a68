r"""What do teachers pass on? The corruptions of the benchmark as primitives at set strength; only p and q are learned.

Section 4.1 of the TransInv paper: a student is trained with one teacher at a
time, and the corruption that comes out with the largest p should be the one
that teacher is robust to (figure 3).

python recipes/probe.py
    the embedded default: two small teachers for digits
transinv probe --mixed_precision bf16 --config \
    recipes/configs/cifar100_probe.yaml \
    --teachers outputs/noise_teacher/student outputs/snow_teacher/student \
    --own gaussian_noise snow --seeds 0 1 2
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("probe", __doc__)
