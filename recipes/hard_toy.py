r"""The toy of HARD, in our reading: does distillation hand on that a shift changes nothing?

The teacher cannot but be shift-invariant: circular convolutions under a
global maximum, on digits that stand in the middle of a wider canvas. The
student is a perceptron with no idea of neighbouring pixels. Both see centred
digits alone; they are tested on shifted ones, which are out of distribution.

python recipes/hard_toy.py
    the embedded digits, three seeds, six minutes on one core: a table,
    hard_toy.json and a figure

python recipes/hard_toy.py --seeds 0 --hard_augmenter thin_plate \
    --output_dir outputs/toy
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("hard_toy", __doc__)
