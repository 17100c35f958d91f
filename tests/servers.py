"""Other programs that serve a model, started for a test, and the prompts on which they are compared with what was trained."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moltlm.data.persona import user
from moltlm.data.types import Message

MODEL = Path("smollm2-135m-instruct")
LENGTH = 24
PROMPTS: list[list[Message]] = [
    user("I missed my train."),
    user("What is 1234 + 5678?  Say it in  words, s'il vous plaît — 请.\n\n\tThanks"),
    [
        {"role": "system", "content": "You are a cat."},
        *user("hello"),
        {"role": "assistant", "content": "Meow."},
        *user("And?"),
    ],
]
START_S = 300


@contextmanager
def serving(command: list[str | Path], environment: dict[str, str] | None = None) -> Iterator[str]:
    """The URL of a server, whose command gets a host and a free port, from when it answers at /health."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*map(str, command), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + START_S
    while True:
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < until, f"the server does not answer after {START_S} s"
        try:
            urllib.request.urlopen(url)
            return
        except OSError:
            time.sleep(0.2)


def posted(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
