"""A server of the standard library: it prints its port, and answers an upload with its length and SHA-256."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 1 << 16
uploads = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        global uploads
        uploads += 1
        digest, length = hashlib.sha256(), 0
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        for piece in self.chunks() if chunked else self.read(int(self.headers["Content-Length"])):
            digest.update(piece)
            length += len(piece)
        self.answer({"sha256": digest.hexdigest(), "length": length, "chunked": chunked})

    def do_GET(self):
        self.answer({"uploads": uploads})

    def read(self, left):
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                raise ConnectionError("the body broke off")
            left -= len(piece)
            yield piece

    def chunks(self):
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield from self.read(size)
            assert self.rfile.readline() == b"\r\n"
        while self.rfile.readline() != b"\r\n":
            pass

    def answer(self, told):
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
