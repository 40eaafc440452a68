r"""What is a checkpoint invariant to? A report on any classifier, from unlabelled images: invariance.html, .md, .json.

python recipes/invariance.py --model USER/NAME --dataset USER/DATA
    one model; without --dataset on the embedded digits

python recipes/invariance.py --models A B --reference PLAIN \
    --dataset uoft-cs/cifar10
    several side by side, ranked by what they tolerate beyond a plainly
    trained one
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("invariance_report", __doc__)
