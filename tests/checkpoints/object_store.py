"""Google Cloud Storage in one process: what TensorStore and gcsfs ask over HTTP.

Objects live in memory. It knows no users, no renaming and no folders, as the real one.
"""

import contextlib
import email
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator


class Objects(http.server.ThreadingHTTPServer):
    """Objects by "bucket/name", each with its content and generation."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.there: dict[str, tuple[bytes, int]] = {}
        self.parts: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.generation = 1

    def handle_error(self, request, client_address):
        """A client that ends breaks its connections; that is no error of ours."""

    @property
    def environment(self) -> dict[str, str]:
        """What lets a process take this for the real one."""
        address = f"http://127.0.0.1:{self.server_address[1]}"
        return {
            "TENSORSTORE_GCS_HTTP_URL": address,
            "STORAGE_EMULATOR_HOST": address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
            "EPATH_USE_TF": "false",
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Objects

    def log_message(self, *arguments):
        del arguments

    def do_GET(self):
        path, query = self.asked()
        bucket, name = self.named(path)
        if name is None:
            return self.listed(bucket, query) if path.endswith("/o") else self.json({})
        with self.server.lock:
            found = self.server.there.get(f"{bucket}/{name}")
        if found is None:
            return self.json({"error": {"code": 404, "message": "none"}}, 404)
        data, generation = found
        if query.get("ifGenerationNotMatch") == str(generation):
            return self.answer(b"", 304)
        if query.get("alt") != "media":
            return self.json(self.about(bucket, name, found))
        status, size = 200, len(data)
        headers = {"X-Goog-Generation": str(generation)}
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin = int(first) if first else size - int(last)
            end = min(int(last), size - 1) if first and last else size - 1
            if begin >= size:
                return self.answer(b"", 416)
            headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
            status, data = 206, data[begin : end + 1]
        return self.answer(data, status, headers)

    def do_POST(self):
        if self.path.startswith("/parts/"):
            return self.do_PUT()
        path, query = self.asked()
        if "/rewriteTo/" in path or "/moveTo/" in path:
            return self.copy(path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, _ = self.named(path)
        name = query.get("name")
        kind = query.get("uploadType")
        if kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            told, content = email.message_from_bytes(head + body).get_payload()
            name = json.loads(told.get_payload())["name"]
            body = content.get_payload(decode=True)
        assert name, self.path
        if kind == "resumable":
            where = urllib.parse.quote(f"{bucket}/{name}", safe="")
            host = self.headers["Host"]
            return self.answer(b"", 200, {"Location": f"http://{host}/parts/{where}"})
        return self.put(bucket, name, body, query)

    def do_PUT(self):
        """The next part of an upload; the one that tells the whole size is the last."""
        key = urllib.parse.unquote(self.asked()[0].removeprefix("/parts/"))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            whole = self.server.parts.pop(key, b"") + body
            if self.headers.get("Content-Range", "/0").endswith("/*"):
                self.server.parts[key] = whole
                return self.answer(b"", 308, {"Range": f"bytes=0-{len(whole) - 1}"})
        bucket, _, name = key.partition("/")
        return self.put(bucket, name, whole, {})

    def put(self, bucket, name, body, query, answer=True):
        key = f"{bucket}/{name}"
        with self.server.lock:
            now = self.server.there.get(key, (b"", 0))[1]
            if int(query.get("ifGenerationMatch", now)) != now:
                return self.json({"error": {"message": "other generation"}}, 412)
            self.server.generation += 1
            self.server.there[key] = body, self.server.generation
            about = self.about(bucket, name, self.server.there[key])
        return self.json(about) if answer else about

    def copy(self, path):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        move = "/moveTo/" in path
        source, target = path.split("/moveTo" if move else "/rewriteTo")
        bucket, name = self.named(source)
        if move:
            target = f"/b/{bucket}{target}"
        data, _ = self.server.there[f"{bucket}/{name}"]
        about = self.put(*self.named(target), data, {}, answer=False)
        if move:
            del self.server.there[f"{bucket}/{name}"]
        return self.json(about if move else {"done": True, "resource": about})

    def do_DELETE(self):
        path, _ = self.asked()
        bucket, name = self.named(path)
        with self.server.lock:
            found = self.server.there.pop(f"{bucket}/{name}", None)
        return self.answer(b"", 404 if found is None else 204)

    def asked(self):
        url = urllib.parse.urlsplit(self.path)
        return url.path, dict(urllib.parse.parse_qsl(url.query))

    def named(self, path):
        """The bucket, and the object where one is named."""
        _, _, rest = path.partition("/b/")
        bucket, _, rest = rest.partition("/")
        name = rest.removeprefix("o").removeprefix("/")
        return bucket, urllib.parse.unquote(name) if rest.startswith("o/") else None

    def listed(self, bucket, query):
        prefix, cut = query.get("prefix", ""), query.get("delimiter")
        items, folders = [], set()
        with self.server.lock:
            there = dict(self.server.there)
        for key, found in sorted(there.items()):
            name = key.removeprefix(f"{bucket}/")
            if name == key or not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if cut and cut in rest:
                folders.add(prefix + rest.split(cut)[0] + cut)
            else:
                items.append(self.about(bucket, name, found))
        most = int(query.get("maxResults", 1000))
        return self.json({"items": items[:most], "prefixes": sorted(folders)})

    def about(self, bucket, name, found):
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(found[0])),
            "generation": str(found[1]),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def json(self, value, status=200):
        data = json.dumps(value).encode()
        self.answer(data, status, {"Content-Type": "application/json"})

    def answer(self, data, status, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(data)


@contextlib.contextmanager
def running() -> Iterator[Objects]:
    """The store, for as long as the block lasts."""
    objects = Objects()
    thread = threading.Thread(target=objects.serve_forever, daemon=True)
    thread.start()
    try:
        yield objects
    finally:
        objects.shutdown()
        thread.join()
        objects.server_close()
