"""From a configuration to a server that listens."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from moltlm.data.errors import BadInput
from moltlm.pipeline.config import Config
from moltlm.pipeline.console import Console
from moltlm.pipeline.service import corrections
from moltlm.pipeline.service.server import app, archive, upstream
from moltlm.pipeline.service.server.engine import Engine
from moltlm.pipeline.service.server.guard import is_loopback

LOCAL = "local"
STOP_WITHIN_S = 2


@dataclass(frozen=True)
class Settings:
    """The options of `molt serve`.

    Attributes:
        key_env: the environment variable with the key that clients send; empty for no key.
        keep: write every conversation for retraining.
        engine: LOCAL, or the URL of a server behind this one.
        own: serve the run's own adapters, whatever is in use.
        max_new_tokens: length of an answer where a request names none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key_env: str = ""
    keep: bool = False
    engine: str = LOCAL
    own: bool = False
    max_new_tokens: int = 512

    def read_key(self) -> str:
        """The key that clients send; empty for none.

        Raises:
            BadInput: others could use the server without a key, or the variable is not set.
        """
        if not self.key_env:
            if not is_loopback(self.host):
                raise BadInput(
                    f"Everybody who reaches {self.host} could use the server, and read what is said to it.",
                    "Name a variable that holds a key: export MOLT_KEY=$(openssl rand -hex 16), and --key-env MOLT_KEY",
                )
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise BadInput(
                f"The environment variable {self.key_env} holds no key.",
                f"Set it: export {self.key_env}=$(openssl rand -hex 16)",
            )
        return key


def engine_of(config: Config, settings: Settings, console: Console) -> Engine:
    """What answers; for LOCAL the model is loaded. A server that does not answer yet is said. Raises BadInput for a URL
    that is none."""
    if settings.engine != LOCAL:
        url = upstream.check_url(settings.engine)
        if trouble := upstream.unreachable(url):
            console.error(trouble, "")
        return upstream.Upstream(url)
    from moltlm.pipeline.service.server.local import Local

    return Local(config, console, settings.own, settings.max_new_tokens)


def application(config: Config, settings: Settings, engine: Engine, console: Console) -> ASGIApp:
    """The server without a socket. Raises BadInput where conversations cannot be written."""
    folder = config.retrain.conversations
    if settings.keep and folder.suffix == ".jsonl":
        raise BadInput(
            f"Conversations are written into a folder, and retrain.conversations is the file {folder}.",
            "Name a folder: retrain.conversations=conversations",
        )
    folder = folder.parent if folder.suffix == ".jsonl" else folder
    stored = archive.Archive(folder / archive.FOLDER, config.conversations.redact, config.conversations.forgotten)
    session = corrections.session(config)
    is_local = settings.engine == LOCAL
    service = app.Service(engine, stored, session, settings.keep, is_local, lambda line: console.error(line, ""))
    return app.build(service, settings.host, settings.read_key())


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises BadInput for an address that cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        fix = "Take a free port: --port 0" if is_port else "Use an address of this machine: --host 127.0.0.1"
        raise BadInput(f"{host}:{port} cannot be listened on: {reason}.", fix) from None


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(application: ASGIApp) -> uvicorn.Server:
    """A server that writes nothing of what is said to any log."""
    config = uvicorn.Config(
        application,
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    return uvicorn.Server(config)


def listen(application: ASGIApp, engine: Engine, sock: socket.socket) -> None:
    """Serve until the process is told to stop; running answers then end."""
    try:
        with suppress(KeyboardInterrupt):  # uvicorn hands it on after it has stopped
            server_of(application).run(sockets=[sock])
    finally:
        engine.close()
