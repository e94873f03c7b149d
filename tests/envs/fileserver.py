"""A file server for tests of downloads: ranges, ETags, and every way in which a transfer goes wrong."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What is served, and what goes wrong.

    Attributes:
        content: Path -> bytes.
        etags: Path -> ETag, by default of the content; an empty one is not sent.
        cut: Path -> after how many bytes the next answers break off; one entry per answer.
        status: Path -> statuses of the next answers.
        headers: Path -> more headers.
        asked: (path, Range header) of every request.
    """

    content: dict[str, bytes]
    etags: dict[str, str] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    status: dict[str, list[int]] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(content: dict[str, bytes]) -> Iterator[Files]:
    files = Files(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            files.asked.append((self.path, wanted))
            if files.status.get(self.path):
                self.send_error(files.status[self.path].pop(0))
                return
            if self.path not in files.content:
                self.send_error(404)
                return
            body = files.content[self.path]
            etag = files.etags.get(self.path, f'"{hashlib.md5(body).hexdigest()}"')
            start = 0
            if wanted and etag and self.headers.get("If-Range") == etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if etag:
                self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(body) - start))
            for name, value in files.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            cuts = files.cut.get(self.path)
            self.wfile.write(body[start : start + cuts.pop(0)] if cuts else body[start:])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
