"""What --help says of the fields of dataclasses, by argparse: the ones to know first, some by a name, or all of them.

--help         the ones most runs need, and the names of all others by what they concern
--help NAME    a group of fields, a method with all of its own, or one flag
--help_all     everything
"""

import argparse
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import MISSING, Field, dataclass, fields
from functools import partial
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.evaluation.conditions import AUGMENTATIONS
from hf_transinv.objectives.registry import LEARNED, METHODS

FIRST = (
    *("model", "models", "reference", "dataset", "image_size", "crop", "flip", "validation_share"),
    *("student", "student_init", "teachers", "method", "augment", "num_train_epochs", "max_steps", "batch_size"),
    *("learning_rate", "rows", "groups", "scale", "own", "seeds", "seed", "protocol", "corruptions"),
    *("corrupted_folder", "eval_corruptions", "output_dir", "resume_from", "report_to", "push_to_hub"),
)
"""The fields that most runs need, of all commands, in the order in which --help shows them."""
_OF_ONE_RUN = ("seed", "push_to_hub")  # of no use to a command that has several seeds
_FEW = 20  # fields of a command whose --help needs no choice among them
# Values of fields whose configuration lies in a room below those that know them.
_CHOICES: dict[str, tuple[str, ...]] = {
    "eval_corruptions": ("all", "none", *CORRUPTIONS),
    "validation_corruptions": ("all", "none", *CORRUPTIONS),
    "eval_augment": tuple(AUGMENTATIONS),
}
_METHODS = {**METHODS, **LEARNED}
_METAVARS = {bool: "{true,false}", int: "N", float: "X"}
_LONGEST_METAVAR = 44
_LONGEST_LIST = 90  # of known values, on the first screen
_POSITION = 26  # columns of a flag and its values; the text begins behind them


@dataclass(frozen=True)
class _Flag:
    """A field as --help shows it.

    Attributes:
        name: of the field.
        text: what its dataclass says of it, on one line.
        values: how its values are written.
        choices: known values that are too long for that.
        default: its value where it is not given, with a word before it; empty where there is none to say.
        topic: its group, or the method that it belongs to.
        asked_by: names that --help NAME shows it for.
    """

    name: str
    text: str
    values: str
    choices: str
    default: str
    topic: str
    asked_by: frozenset[str]

    def add_to(self, section: argparse._ArgumentGroup, is_brief: bool) -> None:
        """Put it into a section of a parser.

        Args:
            section: of a parser.
            is_brief: leave out what comes after the first clause of its text.
        """
        text = self.text.partition(". ")[0].partition("; ")[0] if is_brief else self.text
        known = f" {{{self.choices}}}" if self.choices and not (is_brief and len(self.choices) > _LONGEST_LIST) else ""
        told = " ".join((f"{text.rstrip('.')}{known}", *([f"({self.default})"] if self.default else []))).strip()
        section.add_argument(f"--{self.name}", metavar=self.values, help=told.replace("%", "%%"))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions keep their lines; one that is too long for the terminal goes on below its own margin."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        margins = [line[: len(line) - len(line.lstrip())] for line in text.splitlines()]
        return "\n".join(
            textwrap.fill(line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
            for line, margin in zip(text.splitlines(), margins, strict=True)
        )


def flat_fields(group: type) -> list[Field]:
    """The fields of a dataclass that are flags: those that are dataclasses themselves are groups of their own."""
    hints = get_type_hints(group)
    return [flat for flat in fields(group) if not hasattr(hints[flat.name], "__dataclass_fields__")]


def default_of(flat: Field) -> Any:
    """The value of a field that is not given."""
    make = flat.default_factory
    return flat.default if make is MISSING else make()


def help_asked(argv: Sequence[str]) -> str | None:
    """What is asked to be explained: "" the first screen, "all", or the name after --help; None: nothing."""
    for token, following in zip(argv, [*argv, "-"][1:], strict=True):
        if token in ("-h", "--help"):
            return "" if following.startswith("-") else following
        if token.startswith("--help="):
            return token.removeprefix("--help=")
        if token == "--help_all":
            return "all"
    return None


def show_help(
    groups: Sequence[type], asked: str, values: Mapping[str, Any], description: str, operands: str = ""
) -> NoReturn:
    """Print what is asked for, and end the process.

    Args:
        groups: dataclasses with distinct field names.
        asked: as `help_asked` returns it.
        values: of fields that this command or its YAML has in place of the dataclasses' defaults.
        description: of the command.
        operands: what it takes before its flags.

    Raises:
        InputError: nothing has the name that is asked for.
    """
    by_group = {group: _flags(group, groups, values) for group in groups}
    flags = {flag.name: flag for flags in by_group.values() for flag in flags}
    shown = set(flags) if asked == "all" else {flag.name for flag in flags.values() if asked in flag.asked_by}
    if asked and not shown:
        known = {name for flag in flags.values() for name in flag.asked_by}
        raise InputError(f"--help {asked}: no group, method or flag of that name{did_you_mean(asked, known)}")
    parser = argparse.ArgumentParser(
        usage=f"%(prog)s {operands + ' ' if operands else ''}[--FLAG VALUE ...]",
        description=description if asked in ("", "all") else "",
        formatter_class=partial(_Formatter, max_help_position=_POSITION),
        add_help=False,
    )
    if asked in ("", "all"):
        is_brief = not asked and len(flags) > _FEW
        left_out = _OF_ONE_RUN if "seeds" in flags else ()
        first = [flags[name] for name in FIRST if name in flags and name not in left_out] if is_brief else []
        section = parser.add_argument_group("the ones you will need" if first else "options")
        section.add_argument("--config", metavar="FILE", help="YAML with any of these, or the name of a shipped one")
        for flag in first:
            flag.add_to(section, is_brief=True)
        parser.epilog = _more(flags.values(), {flag.name for flag in first}) if first else _PRINT_CONFIG
        if not is_brief:
            shown = set(flags)
    for group, members in by_group.items():
        if any(flag.name in shown for flag in members):
            section = parser.add_argument_group(_title(group, members[0].topic))
            for flag in members:
                if flag.name in shown:
                    flag.add_to(section, is_brief=False)
    parser.print_help()
    raise SystemExit(0)


_PRINT_CONFIG = "--print_config prints a run's YAML; transinv --help has the launcher's flags."


def _more(flags: Iterable[_Flag], first: Set[str]) -> str:
    """What the other flags concern, a line each, and how they are explained."""
    others: dict[str, list[str]] = {}
    for flag in flags:
        if flag.topic in _METHODS:
            others.setdefault("methods", [*_METHODS])
        elif flag.name not in first:
            others.setdefault(flag.topic, []).append(flag.name)
    width = shutil.get_terminal_size().columns - 16
    lines = [
        f"  {topic:<12}{textwrap.shorten(', '.join(names), width, placeholder=' ...')}"
        for topic, names in others.items()
    ]
    said = "more (--help NAME: a group, a method or a flag; --help_all: everything):"
    return "\n".join([said, *lines, "", _PRINT_CONFIG])


def _title(group: type, topic: str) -> str:
    said = str(docstring_parser.parse(inspect.getdoc(group) or "").short_description).rstrip(".")
    return textwrap.fill(f"{said} [{topic}]", shutil.get_terminal_size().columns - 2)


def _flags(group: type, groups: Sequence[type], values: Mapping[str, Any]) -> list[_Flag]:
    """The fields of a group as --help shows them."""
    doc = docstring_parser.parse(inspect.getdoc(group) or "")
    text_of = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in doc.params}
    hints = get_type_hints(group)
    has_methods = any(flat.name == "method" for one in groups for flat in fields(one))
    owners = [name for name, kind in _METHODS.items() if has_methods and group in kind.configs]
    topic = owners[0] if owners else group.__name__.removesuffix("Config").lower()
    found = []
    for flat in flat_fields(group):
        takers = [name for name, kind in _METHODS.items() if has_methods and flat.name in kind.own_options]
        words = flat.name.split("_")
        beginnings = ["_".join(words[: count + 1]) for count in range(len(words))]
        values_of, choices = _written(flat, hints[flat.name])
        default = _default(flat, values, text_of[flat.name])
        asked_by = frozenset((topic, *owners, *takers, *beginnings))
        found.append(_Flag(flat.name, text_of[flat.name], values_of, choices, default, topic, asked_by))
    return found


def _written(flat: Field, hint: Any) -> tuple[str, str]:
    """How values of a field are written, and the known ones where they are too long for that."""
    kinds = get_args(hint) or (hint,)
    literal = kinds if get_origin(hint) is Literal else ()
    choices = flat.metadata.get("choices") or _CHOICES.get(flat.name) or literal
    known, several = ",".join(map(str, choices)), " ..." if get_origin(hint) is tuple else ""
    if choices and len(known) <= _LONGEST_METAVAR:
        return f"{{{known}}}{several}", ""
    kind = next((_METAVARS[kind] for kind in kinds if kind in _METAVARS), "NAME")
    return f"{kind}{several}", known.replace(",", ", ")


def _default(flat: Field, values: Mapping[str, Any], text: str) -> str:
    """The value of a field that is not given, with a word before it; empty where that is nothing."""
    own = default_of(flat)
    value = values.get(flat.name, own)
    value = list(value) if isinstance(value, tuple) else value
    if value is None or value == []:
        return ""
    said = " ".join(map(_text, value)) if isinstance(value, list) else _text(value)
    return f"here: {said}" if value != (list(own) if isinstance(own, tuple) else own) else f"default: {said}"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
