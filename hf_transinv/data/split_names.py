"""Names of splits: recognised in the names of folders and files, looked up, chosen by default."""

import re
from collections.abc import Callable, Iterable, Sequence

from hf_transinv.errors import InputError

_WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS.items() for word in words}
_EVAL_KINDS = ("test", "validation")  # tried in this order
_PART = re.compile(r"([^\[\]]*)(\[.*\])?")


def split_word(name: str) -> str | None:
    """The word in a folder's or file's name that says which split it is: "Training_set" -> "training".

    None when there is no such word, or words of different splits ("train_test_split").
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in _KIND_OF_WORD]
    return words[0] if len({_KIND_OF_WORD[word] for word in words}) == 1 else None


def split_kind(name: str) -> str | None:
    """The kind of split that a name says in whatever words: "train", "test" or "validation"; None: none of them."""
    word = split_word(name)
    return None if word is None else _KIND_OF_WORD[word]


def in_order(names: Iterable[str]) -> list[str]:
    """Splits with those to train on first, else sorted."""
    return sorted(names, key=lambda name: (split_kind(name) != "train", name))


def find_split(asked: str, names: Sequence[str]) -> str:
    """The split that was asked for: by its name, else whatever its case ("Train"), else by its kind ("training").

    Args:
        asked: a split, a slice of one ("train[:90%]"), or several joined by "+".
        names: the splits that there are.

    Returns:
        The same with the actual names; a split that is not found, or not unique, is left as it was asked for.
    """
    return "+".join(_find_part(part.strip(), names) for part in asked.split("+"))


def _find_part(asked: str, names: Sequence[str]) -> str:
    found = _PART.fullmatch(asked)
    if found is None:
        return asked
    name, rest = found.group(1), found.group(2) or ""
    same = [known for known in names if known.lower() == name.lower()]
    kind = split_kind(name)
    kin = [known for known in names if split_kind(known) == kind] if kind else []
    if name not in names:
        name = next((unique[0] for unique in (same, kin) if len(unique) == 1), name)
    return name + rest


def default_eval_split(names: Sequence[str]) -> str:
    """Chooses the split to evaluate on: test before validation, whatever the case and the words.

    Raises:
        InputError: none is named as one to evaluate on, or several are.
    """
    for kind in _EVAL_KINDS:
        of_kind = [name for name in names if split_kind(name) == kind]
        exact = [name for name in of_kind if name == kind] or of_kind
        if len(exact) > 1:
            raise InputError(f"Several splits could be evaluated on: {', '.join(exact)}. Name one with --eval_split.")
        if exact:
            return exact[0]
    raise InputError(
        f"None of the splits ({', '.join(names)}) is named as one to evaluate on. Name one with --eval_split, or hold "
        "out a part of the training split, the same share of every class: --validation_share 0.1"
    )


def spec_parts(
    spec: str, names: Sequence[str], length: Callable[[str], int], dataset: str
) -> list[tuple[str, int, int]]:
    """A split, a slice of one, or several joined by "+" -> (split, first row, row behind the last) of each.

    Args:
        spec: as `datasets` writes it: "train", "train[:90%]", "train[10:20]+test".
        names: the splits, whatever characters they have.
        length: a split's number of rows; called for those in the spec alone.
        dataset: for errors.

    Raises:
        InputError: no such split, or no such slice.
    """
    from datasets import ReadInstruction

    aliases: dict[str, str] = {}
    renamed = []
    for part in spec.split("+"):
        found = _PART.fullmatch(part.strip())
        name, rest = (found.group(1), found.group(2) or "") if found else (part, "")
        if name not in names:
            raise _no_split(spec, names, dataset, f"there is no split {name!r}")
        renamed.append(aliases.setdefault(name, f"s{len(aliases)}") + rest)
    lengths = {alias: length(name) for name, alias in aliases.items()}
    known = {alias: name for name, alias in aliases.items()}
    try:
        absolute = ReadInstruction.from_spec("+".join(renamed)).to_absolute(lengths)
    except (ValueError, AssertionError) as error:  # of a slice
        raise _no_split(spec, names, dataset, str(error)) from error
    return [(known[part.splitname], part.from_, part.to) for part in absolute]


def _no_split(spec: str, names: Sequence[str], dataset: str, why: str) -> InputError:
    return InputError(
        f"{dataset} cannot give split {spec!r} ({why}). Its splits are {', '.join(names)}; a slice is written like "
        "'train[:90%]'."
    )
