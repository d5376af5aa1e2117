"""The few endpoints of a Hugging Face hub that fetching uses, on this machine."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping

COMMIT = "c" * 40


class Hub:
    """What the server offers, and what it was asked for.

    Attributes:
      files: by repository and name.
      gated: repositories that need the token "good".
      cut: after so many bytes of a file's first answer the connection is cut.
      asked: (method, path, Range header) in order.
    """

    def __init__(self, files: Mapping[str, Mapping[str, bytes]]):
        self.files = files
        self.gated: set[str] = set()
        self.cut: dict[str, int] = {}
        self.asked: list[tuple[str, str, str | None]] = []


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Serve on a free port; yields the endpoint's URL."""

    class Handler(_Handler):
        offered = hub

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    offered: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        del format, args

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, path = self.offered, self.path.split("?")[0]
        hub.asked.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if len(parts) < 4:
            return self.refuse(404, "EntryNotFound")
        if parts[:2] == ["api", "models"]:
            name, kind, revision = "/".join(parts[2:4]), *parts[4:6]
        else:
            name, kind, revision = "/".join(parts[:2]), *parts[2:4]
        revision = revision.replace("%2F", "/")
        if name not in hub.files:
            return self.refuse(404, "RepoNotFound")
        if name in hub.gated and self.headers.get("Authorization") != "Bearer good":
            return self.refuse(403, "GatedRepo")
        if revision not in ("main", COMMIT, "refs/pr/1"):
            return self.refuse(404, "RevisionNotFound")
        files = hub.files[name]
        if kind == "revision":
            siblings = [{"rfilename": file} for file in files]
            return self.json({"id": name, "sha": COMMIT, "siblings": siblings})
        if kind == "tree":
            return self.json([entry(f, data) for f, data in files.items()])
        self.file(files["/".join(parts[4:])], "/".join(parts[4:]))

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def file(self, data, name):
        begin = 0
        if asked := self.headers.get("Range"):
            begin = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            end = f"{begin}-{len(data) - 1}/{len(data)}"
            self.send_header("Content-Range", f"bytes {end}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.offered.cut.pop(name, None)
        if cut is None:
            self.wfile.write(data[begin:])
        else:
            self.wfile.write(data[begin : begin + cut])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()


def entry(name, data):
    digest = hashlib.sha256(data).hexdigest()
    return {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": digest[:40],
        "lfs": {"oid": digest, "size": len(data), "pointerSize": 1},
    }
