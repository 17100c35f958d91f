"""Requests to any server with OpenAI's chat completions, with a cache, a token budget and retries."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from moltlm.data.config import EndpointConfig, ServerConfig
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import append_line, fingerprint
from moltlm.data.types import Message, Progress, silent

ALLOWED_HOSTS = "MOLTLM_ALLOWED_HOSTS"
"""The environment variable with the hosts that keys are sent to."""
VENDORS = {
    "OPENAI_API_KEY": "api.openai.com",
    "ANTHROPIC_API_KEY": "api.anthropic.com",
    "MISTRAL_API_KEY": "api.mistral.ai",
    "OPENROUTER_API_KEY": "openrouter.ai",
    "TOGETHER_API_KEY": "api.together.xyz",
}
"""Hosts that a key of theirs is sent to without more ado."""
CHARS_PER_TOKEN = 4
GIVE_UP_AFTER = 20


@dataclass
class Usage:
    """What the requests cost. Tokens are those of prompts and answers, as reported by the server, else estimated."""

    requests: int = 0
    cached: int = 0
    failed: int = 0
    over_budget: int = 0
    tokens: int = 0
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reply:
    """An answer, or the reason why there is none. `down`: the next request will probably fail, too."""

    answer: str | None
    tokens: int = 0
    reason: str = ""
    down: bool = False


Ask = Callable[[list[list[Message]]], list[str | None]]
"""Returns one answer for each list of messages; None where there is none."""


def connect(config: EndpointConfig, cache: Path, usage: Usage, progress: Progress = silent) -> Ask:
    """Connect to a server with OpenAI's chat completions: vLLM, Ollama, llama.cpp, or a hosted one.

    Each answer is appended to `cache` at once, so that an interrupted build continues without paying twice. Requests to
    a busy or failing server are repeated with growing pauses. Once `budget_tokens` are used, including the original
    cost of cached answers, no request is sent; those under way finish.

    Args:
        usage: is filled as requests are made.

    Returns:
        A function that answers lists of messages. It raises BadInput if the server cannot be used at all (unreachable,
        key refused, no such model), and MoltError if every request of a call failed, or GIVE_UP_AFTER in a row.
    """
    from openai import OpenAI

    client = OpenAI(
        base_url=config.url,
        api_key=key_for(config) or "none",
        max_retries=config.retries,
        timeout=config.timeout_s,
    )
    account = _Account(config, cache, usage)

    def one(messages: list[Message]) -> str | None:
        key = _key(config, messages)
        cached, may_request = account.before(key)
        if cached is not None or not may_request:
            return cached
        reply = _complete(client, config, messages, account.answered)
        account.after(key, reply)
        return reply.answer

    def ask(prompts: list[list[Message]]) -> list[str | None]:
        answers: list[str | None] = []
        before = usage.requests, usage.failed
        with ThreadPoolExecutor(config.concurrency) as pool:
            for answer in pool.map(one, prompts):
                answers.append(answer)
                progress(len(answers), len(prompts), "answers")
        requests, failed = usage.requests - before[0], usage.failed - before[1]
        if requests and requests == failed:
            raise _failing(config, f"answered none of {requests} prompts", usage.reasons[-1])
        return answers

    return ask


def key_for(config: ServerConfig) -> str:
    """The key that the server is sent; empty for none.

    Raises:
        BadInput: if a key would go over a connection that others can read, or to a host that the user of this machine
            has not named. A configuration alone, which may be a stranger's, decides neither.
    """
    key = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
    parts = urlsplit(config.url)
    host = (parts.hostname or "").lower()
    if not key or is_loopback(host):
        return key
    without = f"If it needs no key: {config.section}.api_key_env="
    if parts.scheme != "https":
        raise BadInput(
            f"The key in {config.api_key_env} is not sent to {host} over {parts.scheme}, where others can read it.",
            f"Use https in {config.section}.url. {without}",
        )
    if host not in {VENDORS.get(config.api_key_env), *allowed_hosts()}:
        raise BadInput(
            f"The key in {config.api_key_env} is sent only to hosts that you name on this machine, and {host} is none.",
            f'If you trust it: export {ALLOWED_HOSTS}="${ALLOWED_HOSTS} {host}"   {without}',
        )
    return key


def check_told(config: EndpointConfig) -> None:
    """Raises BadInput for a server that the user of this machine has not named: what it is asked may hold what people
    said, and the configuration may be a stranger's."""
    host = (urlsplit(config.url).hostname or "").lower()
    if not is_loopback(host) and host not in {*VENDORS.values(), *allowed_hosts()}:
        raise BadInput(
            f"{config.section}.url is told prompts and answers, and you have not named {host} on this machine.",
            f'If you trust it: export {ALLOWED_HOSTS}="${ALLOWED_HOSTS} {host}"',
        )


def allowed_hosts() -> set[str]:
    """The hosts that the user of this machine has named."""
    return set(os.environ.get(ALLOWED_HOSTS, "").lower().replace(",", " ").split())


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Account:
    """The cache and the usage, shared by several threads under one lock."""

    def __init__(self, config: EndpointConfig, cache: Path, usage: Usage) -> None:
        self._config, self._cache, self._usage = config, cache, usage
        self._answers = _read_cache(cache)
        self._charged: set[str] = set()
        self._spent = 0
        self._in_a_row = 0
        self._lock = Lock()

    @property
    def answered(self) -> bool:
        return self._usage.requests > self._usage.failed

    def before(self, key: str) -> tuple[str | None, bool]:
        """The cached answer, and whether a request is allowed. Raises MoltError after too many failures in a row."""
        with self._lock:
            if row := self._answers.get(key):
                self._usage.cached += 1
                self._charge(key, row[1])
                return row[0], False
            if self._in_a_row >= GIVE_UP_AFTER:
                raise _failing(self._config, f"failed {self._in_a_row} times in a row", self._usage.reasons[-1])
            if self._spent >= self._config.budget_tokens:
                self._usage.over_budget += 1
                return None, False
            return None, True

    def after(self, key: str, reply: Reply) -> None:
        with self._lock:
            self._usage.requests += 1
            self._usage.tokens += reply.tokens
            self._in_a_row = self._in_a_row + 1 if reply.down else 0
            if reply.answer is None:
                self._spent += reply.tokens
                self._usage.failed += 1
                self._usage.reasons.append(reply.reason)
                return
            self._charge(key, reply.tokens)
            self._answers[key] = reply.answer, reply.tokens
            row = {"key": key, "answer": reply.answer, "tokens": reply.tokens}
            append_line(self._cache, json.dumps(row, ensure_ascii=False))

    def _charge(self, key: str, tokens: int) -> None:
        """Charge each answer once, so that a continued build stops where an uninterrupted one would have."""
        if key not in self._charged:
            self._charged.add(key)
            self._spent += tokens


def _failing(config: EndpointConfig, what: str, reason: str) -> MoltError:
    return MoltError(
        f"The {config.section} at {config.url} {what}: {reason}",
        "Look at the server, and run the same command again: the answers so far are kept.",
    )


def _complete(client: Any, config: EndpointConfig, messages: list[Message], answered: bool) -> Reply:
    """Send one request. `answered`: the server has answered before, so a lost connection is an ordinary failure."""
    import openai

    try:
        reply = client.chat.completions.create(
            model=config.model,
            messages=messages,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
            **config.parameters,
        )
        answer = reply.choices[0].message.content
    except openai.APITimeoutError:
        return Reply(None, reason=f"no answer within {config.timeout_s:.0f} s", down=True)
    except openai.APIConnectionError as error:
        if answered:
            return Reply(None, reason="the connection was lost", down=True)
        raise BadInput(f"No server answers at {config.url}.", f"Start it, or set {config.section}.url") from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise BadInput(
            f"{config.url} refuses the key.", f"Put a valid one into the environment: export {config.api_key_env}=..."
        ) from error
    except openai.NotFoundError as error:
        raise BadInput(f"{config.url} has no model {config.model!r}.", _offered(client, config)) from error
    except openai.APIError as error:
        busy = isinstance(error, openai.RateLimitError | openai.InternalServerError)
        return Reply(None, reason=str(error)[:200], down=busy)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        return Reply(None, reason=f"not a chat completion ({error})")
    used = getattr(reply.usage, "total_tokens", None)
    length = sum(len(turn["content"]) for turn in messages) + len(answer or "")
    return Reply(answer or None, used or length // CHARS_PER_TOKEN, "" if answer else "an empty answer")


def _offered(client: Any, config: EndpointConfig) -> str:
    try:
        names = [model.id for model in client.models.list().data]
    except Exception:  # any failure: this is only a hint
        names = []
    what = config.section
    return f"Set {what}.model to one of: {', '.join(names[:10])}." if names else f"Set {what}.model and {what}.url."


def _key(config: EndpointConfig, messages: list[Message]) -> str:
    return fingerprint([config.url, config.model, config.temperature, config.max_tokens, messages])


def _read_cache(path: Path) -> dict[str, tuple[str, int]]:
    """Answer and tokens by key, from all complete lines: a killed process can leave half a line at the end."""
    answers = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
                answers[str(row["key"])] = str(row["answer"]), int(row["tokens"])
            except (ValueError, KeyError, TypeError):
                continue
    return answers
