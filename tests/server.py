"""An HTTP server on the loopback whose faults a test chooses."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What is served, and how.

    files: bytes by path.
    etags: by path; a file without one has no ETag.
    ranges: whether ranges are honoured.
    cuts: for each answer with a body, in order, after how many bytes of it the connection is closed.
    after_body: is called with the path after each answer with a body.
    log: (method, path, first byte asked for) of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    after_body: list[object] = field(default_factory=list)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    url: str = ""

    def bodies(self, path: str) -> list[int]:
        """The first bytes of the ranges of a file that were asked for."""
        return [start for method, of, start in self.log if method == "GET" and of == path]


@contextmanager
def serve() -> Iterator[Server]:
    """A server that answers until the block is left."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            del arguments

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            state.log.append((self.command, self.path, int(asked[1]) if asked else 0))
            if self.path not in state.files:
                self.send_error(404)
                return
            content = state.files[self.path]
            partial = asked is not None and state.ranges
            if asked and partial:
                first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                content = content[first : last + 1]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if self.path in state.etags:
                self.send_header("ETag", state.etags[self.path])
            self.end_headers()
            if not body:
                return
            cut = state.cuts.pop(0) if state.cuts else len(content)
            self.wfile.write(content[:cut])
            if cut < len(content):
                self.close_connection = True
                self.wfile.flush()
                self.connection.close()
            elif state.after_body:
                change = state.after_body.pop(0)
                if callable(change):
                    change()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
