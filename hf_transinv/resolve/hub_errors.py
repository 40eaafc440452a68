"""The message of a failure of the Hub's client, in one line."""

import re
from collections.abc import Iterator

from huggingface_hub import get_token
from huggingface_hub.errors import HTTPError  # of httpx or httpx2, whichever this version uses

# Failures of reading: refused or missing (OSError), interrupted (HTTPError), an answer that is no JSON (ValueError).
READ_FAILURES = (HTTPError, OSError, ValueError)
LOG_IN = "run `hf auth login` or set HF_TOKEN"


def client_says(error: BaseException) -> str:
    """The message of an exception and of its causes, in one line, never with the token.

    The causes matter: for a refused upload, or a Hub that is down, the client's own message names neither. A message
    contains the token when the token is malformed: the client then prints the whole header.
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
    """The exception, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__
