"""Arguments that a network is built with, checked before it is: what nothing reads is refused."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch

from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.models.network_size import vision_config
from hf_transinv.models.param_budget import no_larger_than

_CANARY = "no_network_takes_this"


def check_timm_args(name: str, model: str, arguments: Mapping[str, Any]) -> None:
    """Checks that a network of timm reads all of these arguments.

    It is called once, without memory (on the meta device), with them and with one that no network has. Python refuses
    that one, and names those before it that are not known either. A network that takes it takes anything.

    Args:
        name: the model, for errors.
        model: of `timm.create_model`.
        arguments: by name.

    Raises:
        InputError: an argument is not known, or the network takes any.
    """
    said = ""
    with no_larger_than(None, name), torch.device("meta"):
        try:
            timm.create_model(model, **{**arguments, _CANARY: 0})
        except TypeError as error:
            said = str(error)
        except InputError:  # of `no_larger_than`
            raise
        except Exception:  # a wrong value: it shows again where the network is built, with its error
            return
    unknown = [key for key in arguments if f"'{key}'" in said] if "unexpected keyword" in said else []
    if unknown:
        raise InputError(
            f"model_args {unknown[0]}: {name!r} has no such argument{_near(unknown[0], _taken_by(model))}"
        )
    if not said:
        raise InputError(
            f"model_args {', '.join(arguments)}: {name!r} takes any argument, known or not, so that a misspelt one "
            "would do nothing. Leave them out."
        )


def set_config_fields(config: Any, values: Mapping[str, Any], name: str) -> None:
    """Sets fields of a configuration of transformers, or of its part for images, in place.

    Args:
        config: of an image classifier.
        values: by field.
        name: the model, for errors.

    Raises:
        InputError: the configuration of that architecture has no such field, or the value is not of its kind.
    """
    from transformers import PretrainedConfig

    vision = vision_config(config)
    # What every configuration has says how a network is called, not what it is.
    known = type(vision)().to_dict().keys() - PretrainedConfig().to_dict().keys()
    for key, value in values.items():
        if key not in known:
            raise InputError(
                f"model_args {key}: the {type(vision).__name__} of {name!r} has no such field{_near(key, known)}"
            )
        setattr(vision, key, value)


def _taken_by(model: str) -> list[str]:
    """The arguments that the class of a network of timm names."""
    with torch.device("meta"):
        try:
            return list(inspect.signature(type(timm.create_model(model))).parameters)
        except Exception:  # for a hint alone
            return []


def _near(key: str, known: Iterable[str]) -> str:
    return did_you_mean(key, known) or "."
