"""Push the output folder of a finished run to the Hub, or complete a push that failed.

python recipes/push.py OUT USER/NAME
    as the run was configured; what the Hub already has is not sent again
python recipes/push.py OUT USER/NAME --private --hub_revision BRANCH
    to a repository for yourself alone, to a branch
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("push_run", __doc__)
