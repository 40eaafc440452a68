"""What a Hub does wrong when it is told to, and to which requests."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import unquote

KINDS = {
    "cut": "the connection ends in the middle of a body, on its way down (GET) or up (PUT, POST)",
    "lost": "the request is carried out and the connection ends before the answer",
    "corrupt": "one byte of a body differs; its size, ETag and sha256 are announced as they were",
    "truncate": "a body sent down is too short, though complete by its own Content-Length",
    "slow": "`seconds` go by before the answer, and bodies trickle at `bytes_per_second`",
}
_OF_BODIES = ("cut", "corrupt", "truncate")


@dataclass
class Fault:
    """One rule; see `LoopbackHub.misbehave`, whose arguments these are."""

    method: str
    path: str
    kind: int | str
    times: int | None = 1
    after: int = 0
    at: int | None = None
    code: str | None = None
    retry_after: int = 0
    seconds: float = 0.0
    bytes_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS and self.kind not in range(400, 600):
            raise ValueError(f"kind={self.kind!r}; expected a status from 400 to 599 or one of {', '.join(KINDS)}")

    def concerns(self, method: str, path: str, bears_body: bool) -> bool:
        if self.kind in _OF_BODIES and not bears_body:
            return False
        return self.method in ("*", method) and fnmatchcase(unquote(path), self.path) and self.times != 0

    def split(self, length: int) -> int:
        """The byte of a body of that length at which it happens."""
        return length // 2 if self.at is None else min(self.at, length)

    def corrupted(self, body: bytes) -> bytes:
        at = min(self.split(len(body)), len(body) - 1)
        return body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :] if body else body


@dataclass
class Faults:
    """The rules of a Hub, first one first."""

    rules: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str, bears_body: bool) -> Fault | None:
        """The fault to apply to this request, which is then used up by one.

        Args:
            method: of the request.
            path: of the request, without its query.
            bears_body: whether bytes go over the wire in the request (PUT, POST) or in its answer (GET).
        """
        with self._lock:
            for rule in self.rules:
                if not rule.concerns(method, path, bears_body):
                    continue
                if rule.after:
                    rule.after -= 1
                    continue
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    def left(self) -> Sequence[Fault]:
        """Rules with a limited number of times that have not all happened."""
        return [rule for rule in self.rules if rule.times]
