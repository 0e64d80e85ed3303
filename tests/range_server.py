"""Serves parts of the files of a folder, as servers of cloud-optimised files do: python range_server.py FOLDER.

A process of its own, because opening a raster keeps Python's lock and a thread could not answer meanwhile. Prints its
port; /sent tells how many bytes of files were sent.
"""

from __future__ import annotations

import http.server
import re
import sys
from pathlib import Path


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    sent = 0

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.path == "/sent":
            self.answer(200, str(RangeHandler.sent).encode())
        elif not path.is_file():
            self.send_error(404)
        else:
            data = path.read_bytes()
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, last = (int(asked[1]), int(asked[2] or len(data) - 1)) if asked else (0, len(data) - 1)
            part = data[first : last + 1]
            RangeHandler.sent += len(part)
            place = f"bytes {first}-{first + len(part) - 1}/{len(data)}" if asked else None
            self.answer(206 if asked else 200, part, place)

    def answer(self, status: int, body: bytes, place: str | None = None) -> None:
        self.send_response(status)
        if place:
            self.send_header("Content-Range", place)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: RangeHandler(*args, directory=sys.argv[1])
    ) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
