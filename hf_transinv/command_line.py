"""A configuration from defaults < YAML < command line, on jsonargparse; unknown keys name the nearest known one."""

import difflib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser

from hf_transinv.errors import InputError


class _Parser(ArgumentParser):
    """jsonargparse's parser, with errors that name the nearest known key."""

    def error(self, message: str, exc: Exception | None = None) -> NoReturn:
        raise InputError(" ".join(str(message).split())) from exc


def parse(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    default_config: Path | None = None,
    description: str = "",
) -> list[Any]:
    """Read a configuration: the fields of the dataclasses in `groups`, from defaults, YAML, then the command line.

    Args:
        groups: dataclasses with distinct field names; fields that are dataclasses themselves stay out (name their
            class as a group and join them).
        argv: the command line without the program; default: the process's.
        default_config: YAML that is read when neither --config nor --dataset is given.
        description: shown by --help.

    Returns:
        An instance of each group.

    Raises:
        InputError: an unknown key (the nearest known one is named), a wrong type, a contradiction.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML with any of the fields below")
    for group in groups:
        _add_fields(parser, group)
    given = {token.split("=")[0] for token in argv}
    if default_config and not given & {"--config", "--dataset"}:
        argv = ["--config", str(default_config), *argv]
    argv = _configs_first(argv)
    known = {flat.name: get_type_hints(group)[flat.name] for group in groups for flat in _flat_fields(group)}
    _refuse_unknown(argv, known)
    values = parser.parse_args(argv)
    for name, hint in known.items():
        if values[name] is None and type(None) not in get_args(hint):
            raise InputError(f"{name} cannot be null; leave it out to have its default")
    return [group(**{flat.name: _plain(values[flat.name]) for flat in _flat_fields(group)}) for group in groups]


def _configs_first(argv: Sequence[str]) -> list[str]:
    """Move the YAMLs before everything else, so that the command line wins wherever --config stands in it."""
    configs, others, tokens = [], [], iter(argv)
    for token in tokens:
        if token == "--config":
            configs += [token, next(tokens, "")]
        else:
            (configs if token.startswith("--config=") else others).append(token)
    return configs + others


def _flat_fields(group: type) -> list:
    hints = get_type_hints(group)
    return [flat for flat in fields(group) if not hasattr(hints[flat.name], "__dataclass_fields__")]


def _add_fields(parser: ArgumentParser, group: type) -> None:
    doc = docstring_parser.parse(inspect.getdoc(group))
    help_of = {parameter.arg_name: parameter.description for parameter in doc.params}
    hints = get_type_hints(group)
    section = parser.add_argument_group(doc.short_description)
    for flat in _flat_fields(group):
        default = flat.default if flat.default is not MISSING else flat.default_factory()
        options = {"default": default, "help": help_of.get(flat.name)}
        if get_origin(hints[flat.name]) is tuple:
            options |= {"nargs": "*", "type": hints[flat.name].__args__[0], "default": list(default)}
        elif hints[flat.name] is bool:
            options |= {"nargs": "?", "const": True, "type": bool}
        else:
            options["type"] = hints[flat.name]
        section.add_argument(f"--{flat.name}", **options)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _refuse_unknown(argv: Sequence[str], known: Mapping[str, Any]) -> None:
    """Name unknown flags and YAML keys, with the nearest known one, before anything else looks at them."""
    allowed = {*known, "config", "help", "print_config"}
    tokens = [token.split("=")[0] for token in argv if token.startswith("--")]
    for token in tokens:
        _known_or_error(token[2:], allowed, "flag", "the command line")
    for index, token in enumerate(argv):
        name, _, inline = token.partition("=")
        path = inline or (argv[index + 1] if index + 1 < len(argv) else "")
        if name != "--config":
            continue
        if not Path(path).is_file():
            raise InputError(f"config {path!r} is not a file")
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise InputError(f"config {path}: expected lines of the form 'key: value'")
        for key, value in content.items():
            _known_or_error(str(key), set(known), "key", path)
            if get_origin(known.get(key)) is tuple and not isinstance(value, list):
                raise InputError(f"config {path}: {key} is a list, such as [a, b]; given {value!r}")


def _known_or_error(name: str, allowed: set[str], kind: str, where: str) -> None:
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ". See --help for the known ones"
        raise InputError(f"unknown {kind} {name!r} in {where}{hint}")
