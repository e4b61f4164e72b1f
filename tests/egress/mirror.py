"""Indexes of apt, pip, npm and cargo with one package each, at 203.0.113.40:80."""

import base64
import hashlib
import http.server
import io
import json
import pathlib
import tarfile
import zipfile


def tar(files, mode=0o644):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        folders = {str(folder) for name in files for folder in pathlib.PurePath(name).parents}
        for name in sorted(folders) if next(iter(files)).startswith("./") else []:
            entry = tarfile.TarInfo("./" if name == "." else f"./{name}/")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


wheel = io.BytesIO()
with zipfile.ZipFile(wheel, "w") as archive:
    info = "hello-1.0.dist-info"
    archive.writestr("hello.py", "print('I am hello')\n")
    archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n")
    archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr(f"{info}/RECORD", "")

node = tar({
    "package/package.json": '{ "name": "hello", "version": "1.0.0", "main": "index.js" }',
    "package/index.js": "console.log('I am hello');",
})
sum = "sha512-" + base64.b64encode(hashlib.sha512(node).digest()).decode()
dist = {"tarball": "http://mirror.test/npm/hello/-/hello-1.0.0.tgz", "integrity": sum}
about = {
    "name": "hello",
    "dist-tags": {"latest": "1.0.0"},
    "versions": {"1.0.0": {"name": "hello", "version": "1.0.0", "dist": dist}},
}

crate = tar({
    "hello-1.0.0/Cargo.toml": '[package]\nname = "hello"\nversion = "1.0.0"\nedition = "2021"\n',
    "hello-1.0.0/src/lib.rs": 'pub const HELLO: &str = "I am hello";\n',
})
entry = {
    "name": "hello",
    "vers": "1.0.0",
    "deps": [],
    "cksum": hashlib.sha256(crate).hexdigest(),
    "features": {},
    "yanked": False,
}

def ar(files):
    out = b"!<arch>\n"
    for name, body in files.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode()
        out += body + b"\n" * (len(body) % 2)
    return out


about_deb = """Package: sandscript-hello
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@mirror.test>
Description: says hello
"""
program = tar({"./opt/hello/hello": "#!/bin/sh\necho I am hello\n"}, 0o755)
deb = ar({
    "debian-binary": b"2.0\n",
    "control.tar.gz": tar({"./control": about_deb}),
    "data.tar.gz": program,
})
packages = about_deb + f"""Filename: ./hello.deb
Size: {len(deb)}
SHA256: {hashlib.sha256(deb).hexdigest()}
"""
release = f"""Origin: nobody
Date: Sat, 01 Jan 2022 00:00:00 UTC
SHA256:
 {hashlib.sha256(packages.encode()).hexdigest()} {len(packages)} Packages
"""

FILE = "hello-1.0-py3-none-any.whl"
# By the name that is asked for: what is on the other one is nobody's.
PAGES = {
    "mirror.test/simple/hello/": ("text/html", f'<a href="/files/{FILE}">{FILE}</a>'.encode()),
    f"mirror.test/files/{FILE}": ("application/octet-stream", wheel.getvalue()),
    "mirror.test/apt/Release": ("text/plain", release.encode()),
    "mirror.test/apt/Packages": ("text/plain", packages.encode()),
    "mirror.test/apt/hello.deb": ("application/octet-stream", deb),
    "mirror.test/npm/hello": ("application/json", json.dumps(about).encode()),
    "mirror.test/npm/hello/-/hello-1.0.0.tgz": ("application/octet-stream", node),
    "mirror.test/index/config.json": ("application/json", b'{ "dl": "http://crates.test/get" }'),
    "mirror.test/index/he/ll/hello": ("text/plain", json.dumps(entry).encode() + b"\n"),
    "crates.test/get/hello/1.0.0/download": ("application/octet-stream", crate),
}


class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.replace("/./", "/")
        kind, body = PAGES.get(self.headers.get("Host", "") + path, (None, b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("203.0.113.40", 80), Mirror).serve_forever()
