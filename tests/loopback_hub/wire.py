"""The wire: HTTP/1.1 with connections kept open, bodies in chunks, ranges, and what goes wrong on demand."""

import re
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.loopback_hub.exchange import Answer, Request, Token, refuse
from tests.loopback_hub.faults import Fault, Faults
from tests.loopback_hub.store import Refusal

_PIECE = 2**16  # bytes read or sent at once where nothing is slow
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Logged:
    """A request that was made.

    Attributes:
        method: HTTP's.
        path: percent-encoded, without the query.
        status: of the answer; None when there was none.
        token: what the Authorization header was worth: ``good``, ``bad`` or ``none``.
        range: the Range header.
    """

    method: str
    path: str
    status: int | None
    token: Token
    range: str | None = None


class Listener(ThreadingHTTPServer):
    """One address; a thread for each connection.

    Args:
        token: the good one.
        faults: what goes wrong.
        requests: receives what was asked, before the answer leaves.
        strays: receives what was asked of other hosts through this one as a proxy; nothing goes there.

    Attributes:
        respond: request -> answer; to be set before `open`, since what it says depends on `address`.
    """

    daemon_threads = True
    request_queue_size = 128

    respond: Callable[[Request], Answer]

    def __init__(self, token: str, faults: Faults, requests: list[Logged], strays: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.token = token
        self.faults = faults
        self.requests = requests
        self.strays = strays
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends every connection too, so that a client does not take a dead one for a Hub that hangs."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._open):
            _end(connection)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away is no error of ours
            super().handle_error(request, client_address)


class Exchange(BaseHTTPRequestHandler):
    """One connection of a `Listener`."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _exchange(self) -> None:
        own = urlsplit(self.path)
        if self._is_stray():
            self._refuse_stray()
            return
        length = self.headers.get("Content-Length")
        sends_body = "Transfer-Encoding" in self.headers or int(length or 0) > 0
        if self.command in ("GET", "HEAD"):
            answer = self.server.respond(self._request(b""))
            bears_body = self.command == "GET" and bool(answer.body) and answer.status < 300
            fault = self.server.faults.take(self.command, own.path, bears_body)
        else:
            fault = self.server.faults.take(self.command, own.path, sends_body)
            body = self._read_body(length, fault)
            if body is None:
                self._break_off(None)
                return
            if fault is not None and isinstance(fault.kind, int):
                answer = Answer()
            else:
                answer = self.server.respond(self._request(body))
        self._answer(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_CONNECT = _exchange

    def _request(self, body: bytes) -> Request:
        own = urlsplit(self.path)
        return Request(self.command, own.path, own.query, self._token(), body)

    def _token(self) -> Token:
        given = self.headers.get("Authorization")
        if given is None:
            return "none"
        return "good" if given == f"Bearer {self.server.token}" else "bad"

    def _is_stray(self) -> bool:
        """Whether another host is meant. The Hub's viewer of datasets, which ``datasets`` asks first, is none."""
        host = urlsplit(self.path).netloc
        viewer = f"datasets-server.127.0.0.1:{self.server.server_port}"
        return self.command == "CONNECT" or host not in ("", viewer)

    def _refuse_stray(self) -> None:
        self.server.strays.append(f"{self.command} {self.path}")
        self.close_connection = True
        self._send(refuse(Refusal(403, "There is no way out of the loopback")), None)

    def _read_body(self, length: str | None, fault: Fault | None) -> bytes | None:
        """The body as it is to be understood; None where it ends too early."""
        if "Transfer-Encoding" in self.headers:
            body = self._read_chunks(fault)
        else:
            body = self._read_paced(int(length or 0), fault)
        if body is None or fault is None:
            return body
        if fault.kind == "cut":
            return None
        return fault.corrupted(body) if fault.kind == "corrupt" else body

    def _read_chunks(self, fault: Fault | None) -> bytes | None:
        body = b""
        while line := self.rfile.readline():
            size = int(line.split(b";")[0], 16)
            piece = self._read_paced(size, fault)
            if piece is None:
                return None
            self.rfile.readline()
            if size == 0:
                return body
            body += piece
        return None

    def _read_paced(self, length: int, fault: Fault | None) -> bytes | None:
        if fault is not None and fault.kind == "cut":
            self.rfile.read(fault.split(length))
            return None
        body = b""
        while len(body) < length:
            piece = self.rfile.read(min(self._pace(fault), length - len(body)))
            if not piece:
                return None
            body += piece
        return body

    def _pace(self, fault: Fault | None) -> int:
        """Bytes that may pass now; a slow connection takes a tenth of a second for a tenth of its rate."""
        if fault is None or fault.bytes_per_second is None:
            return _PIECE
        self.server.closing.wait(0.1)
        return max(1, int(fault.bytes_per_second / 10))

    def _answer(self, answer: Answer, fault: Fault | None) -> None:
        if fault is None:
            self._send(answer, None)
            return
        self.server.closing.wait(fault.seconds)
        if isinstance(fault.kind, int):
            refusal = Refusal(fault.kind, f"The loopback Hub was told to answer {fault.kind}", fault.code)
            if fault.kind == 429:
                refusal.headers["Retry-After"] = str(fault.retry_after)
            self._send(refuse(refusal), None)
        elif fault.kind == "lost":
            self._break_off(answer.status)
        else:
            if self.command == "GET" and fault.kind == "corrupt":
                answer.body = fault.corrupted(answer.body)
            if self.command == "GET" and fault.kind == "truncate":
                answer.body = answer.body[: fault.split(len(answer.body))]
            self._send(answer, fault)

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body, status = answer.body, answer.status
        if answer.is_file and "Range" in self.headers:
            body, status = self._part(answer)
        self._log(status)
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.is_file:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        until = fault.split(len(body)) if fault is not None and fault.kind == "cut" else len(body)
        sent = 0
        while sent < until:
            piece = body[sent : min(sent + self._pace(fault), until)]
            self.wfile.write(piece)
            sent += len(piece)
        if until < len(body):
            self.close_connection = True

    def _part(self, answer: Answer) -> tuple[bytes, int]:
        """What the Range header asks for, and the status; the headers are completed in `answer`."""
        size = len(answer.body)
        match = _RANGE.fullmatch(self.headers["Range"])
        if match is None or not any(match.groups()):
            return answer.body, 200
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last) + 1, size) if first and last else size
        if start >= end:
            answer.headers["Content-Range"] = f"bytes */{size}"
            return b"", 416
        answer.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return answer.body[start:end], 206

    def _break_off(self, status: int | None) -> None:
        self._log(status)
        self.close_connection = True
        _end(self.connection)

    def _log(self, status: int | None) -> None:
        if not self._is_stray():
            path = urlsplit(self.path).path
            self.server.requests.append(Logged(self.command, path, status, self._token(), self.headers.get("Range")))

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: `Listener.requests` is the log."""


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        connection.close()  # the other side was faster
