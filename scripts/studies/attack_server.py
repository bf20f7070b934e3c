"""A hostile server: whatever it answers, a file is fetched whole or there is an error in one line, and nothing else.

    python -m scripts.studies.attack_server

Exits with 1 if a fetch gave other bytes than the server's, raised anything but InputError, took a minute, or took
2 s where the answer has no end.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from converters import remote
from converters.errors import InputError
from converters.remote import server as remote_server

CONTENT = b"\x1f\x8b\x08" + hashlib.sha256(b"").digest() * 3000
"""A file that begins like an archive."""
_MOST_S = 60
_ANNOUNCED = 1000
_ENDLESS_S = 2


class Request(BaseHTTPRequestHandler):
    """A request, and the number of requests before it."""

    protocol_version = "HTTP/1.1"
    answer: Callable[[Request, int], None]
    count = 0

    def log_message(self, *arguments: object) -> None:
        del arguments

    def do_GET(self) -> None:
        kind = type(self)
        number, kind.count = kind.count, kind.count + 1
        kind.answer(self, number)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Sends an answer; `body` only to GET."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def whole(request: Request, _: int) -> None:
    request.send(200, {"ETag": '"1"'}, CONTENT)


def busy(status: int, pause: str) -> Callable[[Request, int], None]:
    """Refuses the first requests: fsspec asks for the head, and if that is refused for the whole."""

    def answer(request: Request, number: int) -> None:
        if number < 3:
            request.send(status, {"Retry-After": pause})
        else:
            whole(request, number)

    return answer


def refuses(status: int) -> Callable[[Request, int], None]:
    return lambda request, _: request.send(status, {})


def redirects(where: str) -> Callable[[Request, int], None]:
    return lambda request, _: request.send(302, {"Location": where})


def endless(begins: bytes) -> Callable[[Request, int], None]:
    """A body without a length and without an end."""

    def answer(request: Request, _: int) -> None:
        request.close_connection = True
        request.send(200, {"Content-Length": "", "Connection": "close"}, begins)
        try:
            while request.command == "GET":
                request.wfile.write(bytes(1 << 20))
        except OSError:
            pass

    return answer


def without_length(request: Request, _: int) -> None:
    request.close_connection = True
    request.send(200, {"Content-Length": "", "Connection": "close"}, CONTENT)


def longer(request: Request, _: int) -> None:
    """More bytes than were announced: the file is what was announced."""
    request.close_connection = True
    request.send(200, {"Content-Length": str(_ANNOUNCED), "ETag": '"1"'}, CONTENT)


def huge(request: Request, _: int) -> None:
    """Announces more than any disk has."""
    request.close_connection = True
    request.send(200, {"Content-Length": str(10**18)}, CONTENT)


def other_etag(request: Request, number: int) -> None:
    """Another file at each request."""
    request.send(200, {"ETag": f'"{number}"'}, CONTENT)


def not_a_number(request: Request, _: int) -> None:
    request.close_connection = True
    request.send(200, {"Content-Length": "many", "Connection": "close"}, CONTENT)


ANSWERS: Mapping[str, Callable[[Request, int], None]] = {
    "the file": whole,
    "429, then the file": busy(429, "1"),
    "429 until a date, then the file": busy(429, "Wed, 21 Oct 2015 07:28:00 GMT"),
    "500, then the file": busy(500, ""),
    "503 with nonsense to wait, then the file": busy(503, "soon"),
    "503 always": refuses(503),
    "403": refuses(403),
    "404": refuses(404),
    "302 to nowhere": redirects(""),
    "302 to itself": redirects("/m.ckpt"),
    "302 to a local file": redirects("file:///etc/passwd"),
    "no length, then the file": without_length,
    "zeros without end": endless(b""),
    "a page without end": endless(b"<!doctype html><html>"),
    "an archive without end": endless(CONTENT),
    "more bytes than announced": longer,
    "10^18 bytes announced": huge,
    "another ETag each time": other_etag,
    "a length that is no number": not_a_number,
}


class Outcome(NamedTuple):
    """What a fetch came to."""

    ok: bool
    seconds: float
    said: str


@contextmanager
def served(answer: Callable[[Request, int], None]) -> Iterator[str]:
    """The URL of a server on the loopback that answers so."""
    handler = type("Handler", (Request,), {"answer": staticmethod(answer), "count": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/m.ckpt?token=secret"
    finally:
        server.shutdown()
        server.server_close()


def attack(answer: Callable[[Request, int], None], cache: Path) -> Outcome:
    """Fetches a file from a server that answers so."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    began = time.perf_counter()
    with served(answer) as url:
        try:
            path = remote.local_path(url, cache=cache)
            ok, said = path.read_bytes() in (CONTENT, CONTENT[:_ANNOUNCED]), "fetched"
        except InputError as error:
            said = str(error)
            ok = "\n" not in said and "secret" not in said and "user" not in said
        except Exception as error:
            ok, said = False, f"raised {type(error).__name__}: {error}"
        said = said.replace(url.partition("@")[2].partition("/")[0], "HOST")
    return Outcome(ok, time.perf_counter() - began, said)


def main() -> int:
    table = Table("the server answers", "as it should be", "seconds", "result")
    bad = 0
    for name, answer in ANSWERS.items():
        with tempfile.TemporaryDirectory() as cache:
            found = attack(answer, Path(cache))
        ok = found.ok and found.seconds < (_ENDLESS_S if "without end" in name else _MOST_S)
        bad += not ok
        table.add_row(name, "yes" if ok else "NO", f"{found.seconds:.1f}", found.said[:110])
    Console(width=170).print(table)
    print(f"waits of {remote_server._PAUSE_S} s and more between attempts are part of the seconds")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
