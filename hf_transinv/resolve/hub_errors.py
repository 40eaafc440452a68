"""What the Hub's client says when it fails, in one line."""

import re
from collections.abc import Iterator

from huggingface_hub import get_token
from huggingface_hub.errors import HTTPError  # of httpx or httpx2, whichever this version stands on

# Of reading: refused or not there (OSError), cut off (HTTPError), nonsense for an answer (ValueError, of JSON).
READ_FAILURES = (HTTPError, OSError, ValueError)
LOG_IN = "run `hf auth login` or set HF_TOKEN"


def client_says(error: BaseException) -> str:
    """The message of an exception and of what caused it, in one line, never with the token.

    The cause matters: of a refused upload, or a Hub that is down, the client's own words name neither. The token gets
    into a message by its own fault alone: one that HTTP cannot carry is printed with its header.
    """
    said: list[str] = []
    for link in causes(error):
        text = " ".join(str(link).split())
        if " " not in text:  # nothing at all, or the key of a KeyError
            text = f"{type(link).__name__} {text}".rstrip()
        if not any(text in earlier for earlier in said):
            said.append(text)
    secret = get_token()
    pattern = r"Bearer [^'\"]+" + (f"|{re.escape(secret)}" if secret else "")
    return re.sub(pattern, "<token>", "; caused by: ".join(said))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, what caused it, what caused that, ..."""
    while error is not None:
        yield error
        error = error.__cause__
