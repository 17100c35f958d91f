"""A notice that is not taken is one error, whatever the other side says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from moltlm.data.errors import BadInput
from moltlm.pipeline.service import notices


@pytest.fixture(params=[b"lies\r\n\r\n", b"", b"HTTP/1.1 500 no\r\n\r\n", b"HTTP/1.1 302 there\r\nLocation: /\r\n\r\n"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers once, in its own way."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(request.param)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        thread.join(5)


def test_a_server_that_fails_or_lies_is_one_error(url: str) -> None:
    with pytest.raises(BadInput, match="did not take it"):
        notices._post(url, b"{}")
