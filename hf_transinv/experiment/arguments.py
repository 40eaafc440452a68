"""A configuration from defaults < YAML < command line, on jsonargparse; unknown keys name the nearest known one."""

import math
import os
import re
import reprlib
import sys
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.experiment.field_help import default_of, flat_fields, help_asked, show_help
from hf_transinv.resolve.shipped import config_file

_LARGEST_INTEGER = 2**31 - 1  # seeds and counts of all libraries below take that
_LONGEST_TEXT = 4000  # a path of Linux has 4,096 bytes
_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}
_WRONG_TYPE = re.compile(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)')


class _Loader(yaml.SafeLoader):
    """YAML's plain values, no objects; a key that occurs twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = [key for index, key in enumerate(keys) if key in keys[:index]]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Parser(ArgumentParser):
    """jsonargparse's parser, with errors that name the nearest known key."""

    def error(self, message: str, exc: Exception | None = None) -> NoReturn:
        raise InputError(" ".join(str(message).split())) from exc


def _wrong_type(message: str, hints: Mapping[str, Any]) -> str:
    """Jsonargparse's message on a value of the wrong type, in the words of this package."""
    found = _WRONG_TYPE.match(message)
    if not found or found[1] not in hints:
        return message
    kinds = get_args(hints[found[1]]) or (hints[found[1]],)
    expected = " or ".join(_KINDS[kind] for kind in kinds if kind in _KINDS)
    return f"{found[1]} {found[2]!r}: expected {expected}{' or null' if type(None) in kinds else ''}"


def parse(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    default_config: Path | None = None,
    description: str = "",
    defaults: Mapping[str, Any] | None = None,
    operands: str = "",
) -> list[Any]:
    """Read a configuration: the fields of the dataclasses in `groups`, from defaults, YAML, then the command line.

    Args:
        groups: dataclasses with distinct field names; fields that are dataclasses themselves stay out (name their
            class as a group and join them).
        argv: the command line without the program; default: the process's.
        default_config: YAML that is read when neither --config nor --dataset is given.
        description: shown by --help.
        defaults: of this recipe, instead of the dataclasses' own.
        operands: what the command takes before its flags, shown by --help.

    Returns:
        An instance of each group.

    Raises:
        InputError: an unknown key (the nearest known one is named), a wrong type, a contradiction.
    """
    return build(groups, read_fields(groups, argv, default_config, description, defaults, operands))


def build(groups: Sequence[type], values: Mapping[str, Any]) -> list[Any]:
    """An instance of each group, of `values` by the names of their fields; each checks itself (InputError)."""
    return [group(**{flat.name: values[flat.name] for flat in flat_fields(group)}) for group in groups]


def read_fields(
    groups: Sequence[type],
    argv: Sequence[str] | None = None,
    default_config: Path | None = None,
    description: str = "",
    defaults: Mapping[str, Any] | None = None,
    operands: str = "",
) -> dict[str, Any]:
    """`parse` without its last step: every field by name, of the right type, before the dataclasses check themselves.

    Raises:
        InputError: an unknown key (the nearest known one is named), or a wrong type.
    """
    parser = _Parser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_argument("--config", action="config")
    for group in groups:
        _add_fields(parser, group)
    parser.set_defaults(dict(defaults or {}))
    configs, flags = split_configs(_command_line(argv, default_config))
    known, asked = _hints(groups), help_asked(flags)
    if asked is not None:
        contents = {path: read_yaml(path) for path in configs}
        for path, content in contents.items():
            check_keys(content, groups, path)
        show_help(groups, asked, ChainMap(*reversed(contents.values()), dict(defaults or {})), description, operands)
    for token in flags:
        if token.startswith("--"):
            _known_or_error(
                token.split("=")[0][2:], {*known, "print_config", "help", "help_all"}, "flag", "the command line"
            )
    for path in configs:
        check_keys(read_yaml(path), groups, path)
    try:
        values = parser.parse_args([*(f"--config={path}" for path in configs), *flags])
    except InputError as error:
        raise InputError(_wrong_type(str(error), known)) from error
    for name, hint in known.items():
        if values[name] is None and type(None) not in get_args(hint):
            raise InputError(f"{name} cannot be null; leave it out to have its default")
        for value in values[name] if isinstance(values[name], list) else [values[name]]:
            _check_value(name, value)
    return {name: _plain(values[name]) for name in known}


def given_fields(argv: Sequence[str] | None = None, default_config: Path | None = None) -> set[str]:
    """Names of the fields that a YAML or a flag gives; arguments as of `read_fields`, which checks them."""
    configs, flags = split_configs(_command_line(argv, default_config))
    named = {token.split("=")[0].removeprefix("--") for token in flags if token.startswith("--")}
    return named.union(*map(read_yaml, configs))


def told_configs(argv: Sequence[str] | None = None, default_config: Path | None = None) -> list[str]:
    """A line on each YAML that is read, as a run says it at its start; arguments as of `read_fields`."""
    return [f"config      {path}" for path in split_configs(_command_line(argv, default_config))[0]]


def _command_line(argv: Sequence[str] | None, default_config: Path | None) -> list[str]:
    """The command line, that of the process by default, with the default YAML where it is read."""
    argv = list(sys.argv[1:] if argv is None else argv)
    named = {token.split("=")[0] for token in argv}
    if default_config and not named & {"--config", "--dataset"}:
        return ["--config", str(default_config), *argv]
    return argv


def split_configs(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The YAMLs that --config names, wherever it is, and the flags, which win over all of them."""
    configs, flags, tokens = [], [], iter(argv)
    for token in tokens:
        if token == "--config":
            configs.append(config_file(next(tokens, "")))
        elif token.startswith("--config="):
            configs.append(config_file(token.removeprefix("--config=")))
        else:
            flags.append(token)
    return configs, flags


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The content of a YAML.

    Raises:
        InputError: it is no file, not YAML, or not of the form key: value.
    """
    if not os.path.isfile(path):  # a name too long for a path is no file, where pathlib raises
        raise InputError(f"config {str(path)!r} is not a file")
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, OSError, ValueError, LookupError, RecursionError) as error:
        raise InputError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"config {path}: expected lines of the form 'key: value'")
    return content


def check_keys(content: Mapping[str, Any], groups: Sequence[type], where: str) -> None:
    """Refuse keys that are no fields of the groups (the nearest one is named), and one value where a list belongs."""
    known = _hints(groups)
    for key, value in content.items():
        _known_or_error(str(key), set(known), "key", where)
        is_list = get_origin(known[key]) is tuple
        if is_list and not isinstance(value, list):
            raise InputError(f"config {where}: {key} is a list, such as [a, b]; given {_short(value)}")
        for one in value if is_list else [value]:
            if not isinstance(one, str | int | float | None) or (is_list and (one is None or str(one)[:2] == "--")):
                kind = "a list of values" if is_list else "one value"
                raise InputError(f"config {where}: {key} is {kind}; given {_short(one)}")


def as_flags(content: Mapping[str, Any], groups: Sequence[type], where: str) -> list[str]:
    """Keys and values of a YAML as the command line that says the same.

    Raises:
        InputError: an unknown key, a list where one value belongs or the other way round, a null that is not allowed.
    """
    check_keys(content, groups, where)
    known, flags = _hints(groups), []
    for name, value in content.items():
        if value is None and type(None) not in get_args(known[name]):
            raise InputError(f"config {where}: {name} cannot be null; leave it out to have its default")
        if isinstance(value, list):
            flags += [f"--{name}", *map(str, value)]
        else:
            flags.append(f"--{name}={'null' if value is None else value}")
    return flags


def _hints(groups: Sequence[type]) -> dict[str, Any]:
    """The type of every field."""
    hints: dict[str, Any] = {}
    for group in groups:
        of_group = get_type_hints(group)
        hints |= {flat.name: of_group[flat.name] for flat in flat_fields(group)}
    return hints


def _add_fields(parser: ArgumentParser, group: type) -> None:
    hints = get_type_hints(group)
    for flat in flat_fields(group):
        options = {"default": default_of(flat)}
        if get_origin(hints[flat.name]) is tuple:
            options |= {"nargs": "*", "type": hints[flat.name].__args__[0], "default": list(options["default"])}
        elif hints[flat.name] is bool:
            options |= {"nargs": "?", "const": True, "type": bool}
        else:
            options["type"] = hints[flat.name]
        parser.add_argument(f"--{flat.name}", **options)


def _check_value(name: str, value: Any) -> None:
    """Raises InputError for numbers that no field means, and text that is no name of anything."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, given {value}")
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise InputError(f"{name} must be at most {_LARGEST_INTEGER:,} in size, given {_short(value)}")
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{name} has characters that cannot be printed: {_short(value)}")
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise InputError(f"{name} has {len(value):,} characters, expected at most {_LONGEST_TEXT:,}: {_short(value)}")


def _short(value: Any) -> str:
    """A value for an error, cut short: a YAML of few lines can stand for more than fits into memory."""
    return reprlib.repr(value)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _known_or_error(name: str, allowed: set[str], kind: str, where: str) -> None:
    if name not in allowed:
        longer = sorted(one for one in allowed if one.endswith(f"_{name}"))  # epochs: of several kinds
        hint = f"; did you mean {' or '.join(longer)}?" if longer else did_you_mean(name, allowed)
        hint = hint or ". See --help for the known ones"
        raise InputError(f"unknown {kind} {name!r} in {where}{hint}")
