"""A server on loopback that has files, goes on where it is asked to, and whose connections break."""

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves `files` {name: bytes}; the first answers break off after so many bytes as `breaks` says.

    `asked` has (name, first byte) of every request. Without `versions` it does not say which version a file is of.
    """

    def __init__(self, files, breaks=(), versions=True):
        self.files, self.breaks, self.versions, self.asked = dict(files), list(breaks), versions, []

    @contextlib.contextmanager
    def running(self):
        """Gives its address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self):
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.strip("/")
                content = ours.files.get(name)
                if content is None:
                    ours.asked.append((name, 0))
                    self.send_error(404)
                    return
                version = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                asked = self.headers.get("Range")
                start = 0
                if asked and self.headers.get("If-Range") == version:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                ours.asked.append((name, start))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if ours.versions:
                    self.send_header("ETag", version)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:]
                self.wfile.write(body[: ours.breaks.pop(0)] if ours.breaks else body)

            def log_message(self, *_):
                pass

        return Handler
