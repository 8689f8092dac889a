"""A web server that answers range requests, which the standard library's does not; and that fails when told to."""

import collections
import http.server
import re
import threading
import urllib.parse


class RangeServer:
    """`files`: path -> bytes; `asked`: (path, start, end) of each GET; `failing`: path -> how many answers to come are
    errors 500; `ranges`: False for a server that ignores them."""

    def __init__(self):
        self.files, self.asked, self.failing, self.ranges = {}, [], collections.Counter(), True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer(False)

            def do_GET(self):
                self.answer(True)

            def answer(self, with_body):
                outer.answer(self, with_body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request, with_body):
        path = urllib.parse.unquote(request.path.partition("?")[0])
        data, status, headers = self.files.get(path), 200, {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, None)
        if with_body:
            self.asked.append((path, start, end))
        if self.failing[path] > 0:
            self.failing[path] -= 1
            data, status = b"busy", 500
        elif data is None:
            data, status = b"no such file", 404
        else:
            headers["ETag"] = f'"{hash(data)}"'
            if asked and self.ranges:
                data, status = data[start:end], 206
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
