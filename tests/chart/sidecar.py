"""The binary with a server in front of which it does not speculate: enough to see its routes and its metrics."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

BINARY = os.environ.get("SIDEDRAFT_BINARY", "")


class Healthy(BaseHTTPRequestHandler):
    """200 on /health, 404 on everything else."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@contextmanager
def healthy_upstream():
    """The URL of a server that is up."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def sidecar(upstream: str, *flags: str):
    """The URL of a sidecar that listens."""
    command = [BINARY, "serve", "--listen=127.0.0.1:0", f"--upstream={upstream}", "--retries=0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        try:
            yield json.loads(process.stdout.readline())["listening"]
        finally:
            process.kill()


def get(url: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and text of a reply."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
