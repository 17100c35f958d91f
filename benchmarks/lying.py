"""Servers that are down, slow or lie: those that are told of a cycle, and a teacher."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DOWN, SLOW = "down", "slow"
ANSWERS = [
    DOWN,
    SLOW,
    "HTTP/1.1 500 Oops\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    "lies",
]
"""What a server does: nothing listens, it never answers, or it answers this and hangs up."""


@contextmanager
def server(answer: str) -> Iterator[str]:
    """The URL of a server that answers so."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        if answer == DOWN:
            listening.close()
        else:
            threading.Thread(target=_answer_all, args=(listening, answer), daemon=True).start()
        yield url


def _answer_all(listening: socket.socket, answer: str) -> None:
    with contextlib.suppress(OSError):  # closed
        while True:
            connection, _ = listening.accept()
            if answer == SLOW:
                time.sleep(30)
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(answer.encode())


GOOD = "good"
MOODS = ["drops", "slow", "500", "page", "half", "nobody"]
"""How a teacher misbehaves: it hangs up, does not answer in time, fails, or answers with a web page, half an answer, or
none."""


@contextmanager
def teacher() -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a server with OpenAI's interface, and its mood, which can be changed."""
    mood = {"now": GOOD}
    handler = type("Teacher", (_Teacher,), {"mood": mood})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", mood
        server.shutdown()


class _Teacher(BaseHTTPRequestHandler):
    mood: dict[str, str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        mark = hashlib.sha256(asked.encode()).hexdigest()[:8]
        said = "\n".join(f"{number}. What do I do about lamp {mark} in room {number}?" for number in range(1, 5))
        message = {"role": "assistant", "content": said}
        choices = [] if self.mood["now"] == "nobody" else [{"index": 0, "finish_reason": "stop", "message": message}]
        reply = json.dumps({"id": "1", "object": "chat.completion", "model": "m", "created": 0, "choices": choices})
        self._answer(reply)

    def _answer(self, reply: str) -> None:
        now = self.mood["now"]
        if now == "slow":
            time.sleep(3)
        if now == "drops":
            return
        text = {"page": "<html>Welcome!</html>", "half": reply[:40], "500": '{"error": {"message": "no"}}'}.get(
            now, reply
        )
        with contextlib.suppress(OSError):  # whoever asked has given up
            self.send_response(500 if now == "500" else 200)
            self.send_header("Content-Type", "text/html" if now == "page" else "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
