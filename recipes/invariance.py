r"""What is a checkpoint invariant to? A report on any classifier, from unlabelled images: invariance.html, .md, .json.

python recipes/invariance.py --model USER/NAME --dataset USER/DATA
    one model; without --dataset on the embedded digits

python recipes/invariance.py --models A B --reference PLAIN \
    --dataset uoft-cs/cifar10
    several side by side, ranked by what they tolerate beyond a plainly
    trained one
"""

from hf_transinv.commands.invariance_report import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
