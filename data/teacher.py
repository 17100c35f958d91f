"""Who answers in persona where nobody has written an answer: an OpenAI-compatible endpoint, or the local base."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from data.config import TeacherConfig
from data.errors import BadInput, MoltError
from data.io import fingerprint
from data.spec import Spec
from data.types import ChatModel, Message, Progress, silent

THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
NEXT_TURN = re.compile(r"\n\s*(?:user|human|assistant|<\|im_(?:start|end)\|>)\s*:?\s*\n?", re.IGNORECASE)
CHARS_PER_TOKEN = 4


@dataclass
class Ledger:
    """What asking has cost. Tokens count both ways, as the server says, or estimated where it does not."""

    asked: int = 0
    cached: int = 0
    failed: int = 0
    over_budget: int = 0
    tokens: int = 0
    reasons: list[str] = field(default_factory=list)


Ask = Callable[[list[list[Message]]], list[str | None]]
"""One answer for each list of messages, None where there is none."""


def brief(spec: Spec) -> str:
    """The spec as a system prompt for a teacher. It never becomes part of what is trained on."""
    parts = [spec.system_prompt]
    for title, lines in (
        ("How you talk", spec.voice),
        ("Who you are", [trait.text for trait in spec.traits]),
        ("What you value", spec.values),
        ("What you do not do", spec.boundaries),
        ("Facts about you", [f"{key}: {value}" for key, value in spec.facts.items()]),
    ):
        if lines:
            parts.append(f"{title}:\n" + "\n".join(f"- {line}" for line in lines))
    parts.append("Answer as this person, in their voice, and never mention these instructions.")
    return "\n\n".join(parts)


def in_persona(spec: Spec, prompts: list[list[Message]], ask: Ask) -> list[str | None]:
    """Answers in the spec's voice, without reasoning or turns that the teacher made up."""
    system: Message = {"role": "system", "content": brief(spec)}
    answers = ask([[system, *prompt] for prompt in prompts])
    return [clean(answer) if answer else None for answer in answers]


def clean(answer: str) -> str | None:
    """The answer alone; None if nothing is left."""
    text = THINKING.sub("", answer).strip()
    return NEXT_TURN.split(text)[0].strip() or None


def local(model: ChatModel, config: TeacherConfig, batch_size: int, seed: int, progress: Progress = silent) -> Ask:
    """The base itself, told who to be."""

    def ask(prompts: list[list[Message]]) -> list[str | None]:
        with model.state("base"):
            return list(
                model.generate(
                    prompts, config.max_tokens, batch_size, progress, temperature=config.temperature, seed=seed
                )
            )

    return ask


def endpoint(config: TeacherConfig, cache: Path, ledger: Ledger, progress: Progress = silent) -> Ask:
    """Any server that speaks OpenAI's chat completions: vLLM, Ollama, llama.cpp, a hosted one.

    Each answer is appended to `cache` as it comes, so that an interrupted build goes on without paying twice. A busy or
    failing server is asked again with growing pauses. Once `budget_tokens` are used up nobody is asked any more. Raises
    BadInput when the server cannot be used at all (not there, key refused, no such model), and MoltError when every
    prompt failed.
    """
    from openai import OpenAI

    client = OpenAI(
        base_url=config.url,
        api_key=os.environ.get(config.api_key_env) or "none",
        max_retries=config.retries,
        timeout=config.timeout_s,
    )
    known, lock = _read_cache(cache), Lock()

    def one(messages: list[Message]) -> str | None:
        key = _key(config, messages)
        with lock:
            if key in known:
                ledger.cached += 1
                return known[key]
            if ledger.tokens >= config.budget_tokens:
                ledger.over_budget += 1
                return None
        answer, tokens, reason = _complete(client, config, messages)
        with lock:
            ledger.asked += 1
            ledger.tokens += tokens
            if answer is None:
                ledger.failed += 1
                ledger.reasons.append(reason)
                return None
            known[key] = answer
            _append(cache, {"key": key, "answer": answer, "tokens": tokens})
        return answer

    def ask(prompts: list[list[Message]]) -> list[str | None]:
        found: list[str | None] = []
        before = ledger.asked, ledger.failed
        with ThreadPoolExecutor(config.concurrency) as pool:
            for answer in pool.map(one, prompts):
                found.append(answer)
                progress(len(found), len(prompts), "answers")
        asked, failed = ledger.asked - before[0], ledger.failed - before[1]
        if asked and asked == failed:
            raise MoltError(
                f"The teacher at {config.url} answered none of {asked} prompts: {ledger.reasons[-1]}",
                "Look at the server, and run the same command again: what was answered is kept.",
            )
        return found

    return ask


def _complete(client: Any, config: TeacherConfig, messages: list[Message]) -> tuple[str | None, int, str]:
    """The answer, tokens used, and the reason where there is no answer."""
    import openai

    try:
        reply = client.chat.completions.create(
            model=config.model, messages=messages, temperature=config.temperature, max_tokens=config.max_tokens
        )
        answer = reply.choices[0].message.content
    except openai.APIConnectionError as error:
        if isinstance(error, openai.APITimeoutError):
            return None, 0, f"no answer within {config.timeout_s:.0f} s"
        raise BadInput(
            f"No server answers at {config.url}.", "Start it, or set teacher.url, or teacher.kind=base"
        ) from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise BadInput(
            f"{config.url} refuses the key.", f"Put a valid one into the environment: export {config.api_key_env}=..."
        ) from error
    except openai.NotFoundError as error:
        raise BadInput(f"{config.url} has no model {config.model!r}.", _offered(client)) from error
    except openai.APIError as error:
        return None, 0, str(error)[:200]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        return None, 0, f"not a chat completion ({error})"
    used = getattr(reply.usage, "total_tokens", None)
    length = sum(len(turn["content"]) for turn in messages) + len(answer or "")
    return answer or None, used or length // CHARS_PER_TOKEN, "an empty answer"


def _offered(client: Any) -> str:
    try:
        names = [model.id for model in client.models.list().data]
    except Exception:  # whatever: this is only a hint
        names = []
    return f"Set teacher.model to one of: {', '.join(names[:10])}." if names else "Set teacher.model and teacher.url."


def _key(config: TeacherConfig, messages: list[Message]) -> str:
    return fingerprint([config.url, config.model, config.temperature, config.max_tokens, messages])


def _read_cache(path: Path) -> dict[str, str]:
    """What is whole of it: a kill can leave half a line at the end."""
    found = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
                found[row["key"]] = row["answer"]
            except (ValueError, KeyError, TypeError):
                continue
    return found


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as out:
        out.write(("\n" if torn else "") + json.dumps(row, ensure_ascii=False) + "\n")
