"""A package index with one package, at 203.0.113.40:80."""

import http.server
import io
import zipfile

wheel = io.BytesIO()
with zipfile.ZipFile(wheel, "w") as archive:
    info = "hello-1.0.dist-info"
    archive.writestr("hello.py", "print('I am hello')\n")
    archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n")
    archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr(f"{info}/RECORD", "")

FILE = "hello-1.0-py3-none-any.whl"
PAGES = {
    "/simple/hello/": ("text/html", f'<a href="/files/{FILE}">{FILE}</a>'.encode()),
    f"/files/{FILE}": ("application/octet-stream", wheel.getvalue()),
}


class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind, body = PAGES.get(self.path, (None, b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("203.0.113.40", 80), Mirror).serve_forever()
