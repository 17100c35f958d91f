"""After a cycle: who asked for it is told, and the metrics are written. Neither changes how the cycle ended."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from moltlm.data.endpoint import ALLOWED_HOSTS, allowed_hosts, is_loopback
from moltlm.data.errors import BadInput
from moltlm.pipeline.service.cycles import Cycle

ALLOWED_COMMANDS = "MOLTLM_ALLOWED_COMMANDS"
"""The environment variable with the programs that `schedule.notify` may run, by name or path."""
TIMEOUT_S = 30.0


def send(notify: str, cycle: Cycle, config: str, say: Callable[[str], None]) -> None:
    """Run the command, or post to the URL, with the record of a cycle. What goes wrong is said.

    Args:
        config: the configuration's name, which the record is given with.
    """
    record = json.dumps({"config": config, **asdict(cycle)}, ensure_ascii=False).encode()
    try:
        target = os.environ.get(notify[1:], "") if notify.startswith("$") else notify
        if not target:
            raise BadInput(f"The environment variable {notify[1:]} is not set.", f"export {notify[1:]}=...")
        if urlsplit(target).scheme in ("http", "https"):
            _post(target, record)
        else:
            _run(target, record)
    except BadInput as error:
        say(f"No notice of this cycle was sent: {error.what} {error.fix}")


def check_host(url: str) -> None:
    """Raises BadInput for a URL that is not told: over a connection that others can read, or to a host that the user of
    this machine has not named."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if is_loopback(host):
        return
    if parts.scheme != "https":
        raise BadInput(f"schedule.notify is not sent to {host} over {parts.scheme}.", "Use https.")
    if host not in allowed_hosts():
        raise BadInput(
            f"schedule.notify goes only to hosts that you name on this machine, and {host} is none.",
            f'If you trust it: export {ALLOWED_HOSTS}="${ALLOWED_HOSTS} {host}"',
        )


def check_command(command: str) -> list[str]:
    """The words of a command that may run.

    Raises:
        BadInput: for one that the user of this machine has not named: a configuration may be a stranger's.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadInput(f"schedule.notify is no command line: {error}.", "Quote its words as for a shell.") from None
    if words[0] not in os.environ.get(ALLOWED_COMMANDS, "").split():
        raise BadInput(
            f"schedule.notify runs only programs that you name on this machine, and {words[0]} is none.",
            f'If you trust it: export {ALLOWED_COMMANDS}="${ALLOWED_COMMANDS} {words[0]}"',
        )
    if shutil.which(words[0]) is None:
        raise BadInput(f"There is no program {words[0]}.", "Name one that exists in schedule.notify.")
    return words


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would lead to a host that nobody named."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def _post(url: str, record: bytes) -> None:
    check_host(url)
    request = urllib.request.Request(url, record, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler())
    try:
        with opener.open(request, timeout=TIMEOUT_S):
            pass
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        host = urlsplit(url).hostname  # the path may be a secret
        raise BadInput(f"{host} did not take it: {reason}.", "Try it: molt schedule notify CONFIG") from None


def _run(command: str, record: bytes) -> None:
    words = check_command(command)
    try:
        process = subprocess.run(words, input=record, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"{words[0]} failed: {error}.", "Try it: molt schedule notify CONFIG") from None
    if process.returncode:
        message = process.stderr.decode(errors="replace").strip()[:200]
        raise BadInput(
            f"{words[0]} ended with exit code {process.returncode}: {message}", "Try it: molt schedule notify CONFIG"
        )
