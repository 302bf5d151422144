"""An HTTP endpoint for tests whose paths give various bad answers.

Prints its port, then serves until its standard input ends."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS = {
    "/broken": (500, b"out of rope"),
    "/gone": (404, b"no such berth"),
    "/bytes": (200, b"\xff\xfe"),
    "/text": (200, b"two words"),
    "/long": (200, b"x" * (3 << 20)),
    "/elsewhere": (302, b""),
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/garbage":
            self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
            return
        if self.path == "/short":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{")
            return
        if self.path == "/silent":
            # Answers nothing until the client gives up.
            self.rfile.read(1)
            return
        status, body = ANSWERS[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/login")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            pass  # A client may hang up on a body that is too long for it.

    def do_GET(self):
        # Where a browser would be sent: no answer to a subtask.
        self.send_response(200)
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b"please log in")

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
