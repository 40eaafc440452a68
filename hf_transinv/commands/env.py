"""Print what a bug report needs: versions, hardware and relevant environment variables, without secrets.

transinv env
"""

import argparse
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import huggingface_hub
import torch

from hf_transinv.record import environment

_MORE_PACKAGES = ("torchvision", "torchmetrics", "jsonargparse", "numpy", "pillow", "pyarrow", "diffusers")
_PREFIXES = ("HF_", "HUGGINGFACE_", "ACCELERATE_", "CUDA_", "NCCL_", "OMP_", "PYTORCH_", "TORCH_", "TRANSFORMERS_")
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s]*@")
_PLAIN = ("HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN")  # they name tokens and hold none


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("\n".join(f"- {name}: {value}" for name, value in facts(os.environ).items()))


def facts(variables: Mapping[str, str]) -> dict[str, str]:
    """Everything that is printed, by name.

    Args:
        variables: the environment.
    """
    record = environment()
    versions, hardware = record["versions"], record["hardware"]
    found = {"hf_transinv": f"{versions.pop('hf-transinv', 'not installed')}, commit {record['commit'] or 'unknown'}"}
    found |= {"python": versions.pop("python"), "platform": platform.platform()}
    found |= versions | {name: _version(name) for name in _MORE_PACKAGES}
    found["CPU"] = f"{hardware['cpu_cores']} cores, {hardware['cpu_threads']} threads, {hardware['machine']}"
    found["CUDA of torch"] = torch.version.cuda or torch.version.hip or "none"
    found["GPUs"] = _gpus()
    found["token for the Hub"] = "found" if huggingface_hub.get_token() else "none"
    return found | {name: shown(name, variables[name]) for name in sorted(variables) if name.startswith(_PREFIXES)}


def shown(name: str, value: str) -> str:
    """The value of an environment variable for a report: secrets are hidden, and user names in addresses."""
    if _SECRET.search(name) and name not in _PLAIN:
        return "set (not shown)" if value else "empty"
    return _USER_IN_URL.sub("(not shown)@", value)


def _gpus() -> str:
    if not torch.cuda.is_available():
        other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return "none" if other is None else other.type
    devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return "; ".join(f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in devices)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
