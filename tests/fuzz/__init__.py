"""Input that nobody would write, hundreds of times: a correct result or an InputError, never another exception.

The examples are the same in every run (`derandomize`), and small: what one of them finds belongs into a test of its
own beside what it is about.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hf_transinv.errors import InputError

T = TypeVar("T")


def examples(count: int) -> settings:
    """So many examples, the same ones every time; nothing is written to the working folder."""
    unwell = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=unwell,
    )


def result_or_error(action: Callable[[], T]) -> T | InputError:
    """What the action returns, or the InputError that it raises, whose message must be readable."""
    try:
        return action()
    except InputError as error:
        message = str(error)
        assert message.strip() and len(message) < 20_000, len(message)
        assert "object at 0x" not in message
        return error


def _deep(levels: int) -> Any:
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested


STRANGE = st.sampled_from(
    [
        *(None, True, False, -1, 0, 1, 2**31, 2**40, 10**12, -(10**20), 1.5, -0.5, 1e300, math.nan, math.inf),
        *("", "x", "../../x", "/etc/passwd", "\0", "a\nb", "{{ 7 * 7 }}", "<script>", "😀", "x" * 5000),
        *([], {}, [1, 2], ["a"], [None], {"a": 1}, [[]], _deep(50)),
    ]
)
"""Values that JSON can hold and that mean nothing where they stand."""


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A file cut short, with bits flipped, with a piece of it overwritten, or with more behind it."""
    how = draw(st.sampled_from(["cut", "flip", "overwrite", "append", "empty"]))
    # The beginning of a file is where its headers are.
    place = draw(st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1)))
    if how == "cut":
        return content[:place]
    if how == "flip":
        return content[:place] + bytes([content[place] ^ (1 << draw(st.integers(0, 7)))]) + content[place + 1 :]
    if how == "overwrite":
        piece = draw(st.binary(min_size=1, max_size=8))
        return content[:place] + piece + content[place + len(piece) :]
    return b"" if how == "empty" else content + draw(st.binary(min_size=1, max_size=8))


@st.composite
def damaged_json(draw: st.DrawFn, content: Any) -> Any:
    """JSON in which something, anywhere, is of another kind or gone."""
    place, path = content, []
    while isinstance(place, dict | list) and place and (not path or draw(st.integers(0, 3))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        path.append(draw(st.sampled_from(keys)))
        place = place[path[-1]]
    gone = draw(st.integers(0, 4)) == 0
    return _replaced(content, path, gone, None if gone else draw(STRANGE))


def _replaced(content: Any, path: list, gone: bool, value: Any) -> Any:
    if not path:
        return value
    first, *rest = path
    items = dict(content) if isinstance(content, dict) else dict(enumerate(content))
    if gone and not rest:
        del items[first]
    else:
        items[first] = _replaced(items[first], rest, gone, value)
    return items if isinstance(content, dict) else list(items.values())
