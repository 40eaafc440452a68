"""The configuration of a run: small dataclasses, one per concern. `experiment.arguments.parse` fills them.

Every field is a flag of the same name and a key of the YAML, which is flat. `AugmentationConfig`, `PrimitiveConfig`
and `TransInvConfig` are defined next to what they configure.
"""

from dataclasses import asdict
from typing import Any

from hf_transinv.config.data_config import DataConfig as DataConfig
from hf_transinv.config.mixing_config import MixingConfig as MixingConfig
from hf_transinv.config.output_config import OutputConfig as OutputConfig
from hf_transinv.config.output_config import check_validation as check_validation
from hf_transinv.config.student_config import StudentConfig as StudentConfig
from hf_transinv.config.train_config import TrainConfig as TrainConfig


def as_dict(*groups: Any) -> dict[str, Any]:
    """All fields of all groups as one flat dictionary of values that YAML and JSON can hold."""
    flat: dict[str, Any] = {}
    for group in groups:
        for name, value in asdict(group).items():
            flat |= value if isinstance(value, dict) else {name: list(value) if isinstance(value, tuple) else value}
    return flat
