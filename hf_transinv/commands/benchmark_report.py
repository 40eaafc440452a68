r"""Measure how fast a turn is and how fast it could be: ratios within one run, for a student, a batch and a device.

transinv benchmark
    everything, for WRN-16-2 at 32 px: about ten minutes on two cores
transinv benchmark --mixed_precision bf16 --sections turns \
    --methods transinv augmix --student resnet50.a1_in1k --image_size 224 \
    --num_classes 1000 --output turns.json
    turns of plain training, of TransInv with 1, 3 and 5 teachers and of
    AugMix, beside their lower bounds
transinv benchmark --sections launches
    kernels, copies from the host and waits of a turn on a GPU, for every
    method: counted, on any machine
transinv benchmark --sections corruptions
    images per second of each corruption, with one thread and with two
"""

from pathlib import Path

from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.sections import heading, sections, setting
from hf_transinv.config import OutputConfig, as_dict
from hf_transinv.experiment.arguments import parse
from hf_transinv.experiment.launch import start_accelerator
from hf_transinv.files import write_json
from hf_transinv.record import environment


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    (config,) = parse([BenchmarkConfig], description=description)
    accelerator = start_accelerator(OutputConfig())
    record = {"config": as_dict(config), **environment()}
    record["hardware"] |= setting(accelerator)
    print(f"\n{heading(config, record)}\n", flush=True)
    for text, numbers in sections(config, accelerator):
        print(text, flush=True)
        record |= numbers
        if config.output:
            write_json(Path(config.output), record)
