"""The HTTP side: OpenAI's chat completions, what the page needs, and the page itself."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from moltlm.data.errors import BadInput
from moltlm.data.types import Message
from moltlm.evals import stats
from moltlm.pipeline.service import corrections
from moltlm.pipeline.service.server import archive
from moltlm.pipeline.service.server.archive import Archive
from moltlm.pipeline.service.server.engine import Engine, Event, Finished, Started
from moltlm.pipeline.service.server.guard import Guard
from moltlm.pipeline.service.server.requests import (
    ApiError,
    ChatRequest,
    Edited,
    Exchanged,
    Score,
    Thumb,
    parse,
    unknown_model,
    validated,
)

LIMIT_MIB = 8
PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Service:
    """What the server does.

    Attributes:
        engine: what answers.
        archive: where conversations and thumbs are written.
        session: takes better versions of answers.
        keeps: whether every conversation is written.
        has_scale: whether the engine can change the strength of adapters.
        warn: shows a line to whoever started the server.
    """

    engine: Engine
    archive: Archive
    session: corrections.Session
    keeps: bool
    has_scale: bool
    warn: Callable[[str], None]
    _created: int = field(default_factory=lambda: int(time.time()))

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions"""
        body = parse(await _json(request))
        answer = self.engine.answer(body)
        try:
            first = await _unless_gone(request, anext(answer))  # type: ignore[arg-type]
            assert isinstance(first, Started)
            if body.stream:
                return StreamingResponse(self._events(body, first, answer), media_type="text/event-stream")
            text, end = await _unless_gone(request, _whole(answer))
        except BaseException:
            await answer.aclose()  # type: ignore[attr-defined]
            raise
        await self._keep(body, first, text, end)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None}
        document = {**_head("chat.completion", first), "choices": [{**choice, "finish_reason": end.reason}]}
        return JSONResponse({**document, "usage": _usage(end)})

    async def _events(self, body: ChatRequest, first: Started, answer: AsyncIterator[Event]) -> AsyncIterator[str]:
        """The answer as server-sent events."""
        head = {**_head("chat.completion.chunk", first), **({"usage": None} if body.wants_usage else {})}
        text = ""
        async with aclosing(answer):  # type: ignore[type-var]
            try:
                yield _chunk(head, {"role": "assistant", "content": ""})
                async for event in answer:
                    if isinstance(event, str):
                        text += event
                        yield _chunk(head, {"content": event})
                    elif isinstance(event, Finished):
                        await self._keep(body, first, text, event)
                        yield _chunk(head, {}, event.reason)
                        if body.wants_usage:
                            yield _data({**head, "choices": [], "usage": _usage(event)})
                        yield "data: [DONE]\n\n"
            except ApiError as error:
                yield _data(error.body)

    async def _keep(self, body: ChatRequest, first: Started, text: str, end: Finished) -> None:
        if not self.keeps or body.store is False:
            return
        is_whole = end.reason == "stop"
        try:
            await asyncio.to_thread(self.archive.add, body.prompt, text, first.fingerprint, first.is_learned, is_whole)
        except OSError as error:  # the answer is given all the same
            self.warn(f"A conversation is not written to {self.archive.folder}: {error.strerror or error}.")
        except BadInput as error:  # what was forgotten cannot be read
            self.warn(f"A conversation is not written: {error.what} {error.fix}")

    async def models(self, request: Request) -> Response:
        """GET /v1/models, the default first"""
        offer = await self.engine.offer()
        names = [offer.default, *(name for name in offer.names if name != offer.default)]
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME"""
        name, offer = request.path_params["name"], await self.engine.offer()
        if name not in offer.names:
            raise unknown_model(name, offer.names)
        return JSONResponse(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "moltlm"}

    async def health(self, request: Request) -> Response:
        """GET /health"""
        trouble = self.engine.trouble
        return JSONResponse({"status": "ok", **({"trouble": trouble} if trouble else {})})

    async def about(self, request: Request) -> Response:
        """GET /molt/about: what the page offers"""
        offer = await self.engine.offer()
        facts = {"models": offer.names, "default": offer.default, "keeps": self.keeps, "has_scale": self.has_scale}
        return JSONResponse(facts)

    async def thumb(self, request: Request) -> Response:
        """POST /molt/thumbs"""
        judged = validated(Thumb, await _json(request))
        feedback = {"up": archive.UP, "down": archive.DOWN, None: None}[judged.thumb]
        try:
            await asyncio.to_thread(self.archive.mark, _turns(judged), judged.answer, judged.model, feedback)
        except (OSError, BadInput) as error:
            raise ApiError(500, f"It is not written: {error}") from None
        return JSONResponse({"thumb": judged.thumb})

    async def correct(self, request: Request) -> Response:
        """POST /molt/corrections"""
        edited, lines = validated(Edited, await _json(request)), list[str]()
        prompt = _turns(edited)
        session = replace(self.session, say=lambda line: lines.append(line.strip()), written=0)
        try:
            await asyncio.to_thread(session.take, prompt, edited.answer, edited.better, edited.model)
        except BadInput as error:
            raise ApiError(400, error.what, "better") from None
        if session.written:
            await asyncio.to_thread(self.archive.correct, prompt, edited.answer, edited.better)
        return JSONResponse({"written": bool(session.written), "notes": lines})

    async def score(self, request: Request) -> Response:
        """POST /molt/score: the share of votes that were won, with its interval"""
        votes = validated(Score, await _json(request))
        n = votes.wins + votes.losses
        share = stats.proportion(votes.wins, n) if n else None
        return JSONResponse({"n": n, **({"mean": share.mean, "low": share.low, "high": share.high} if share else {})})


def build(service: Service, host: str, key: str = "") -> ASGIApp:
    """The application behind its guard.

    Args:
        host: the address that it listens on.
        key: what clients have to send; empty for nothing.
    """
    routes = [
        Route("/v1/chat/completions", service.complete, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.model),
        Route("/health", service.health),
        Route("/molt/about", service.about),
        Route("/molt/thumbs", service.thumb, methods=["POST"]),
        Route("/molt/corrections", service.correct, methods=["POST"]),
        Route("/molt/score", service.score, methods=["POST"]),
        Route("/", _page),
        Route("/page/{name}", _page),
    ]
    handlers = {ApiError: _refused, HTTPException: _no_such, ClientDisconnect: _gone}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host, key)  # type: ignore[arg-type]


async def _page(request: Request) -> Response:
    """GET / and the files that it names"""
    file = PAGE / request.path_params.get("name", "page.html")
    if file.parent != PAGE or not file.is_file():
        raise HTTPException(404)
    return Response(file.read_bytes(), media_type=KINDS[file.suffix], headers=HEADERS)


async def _refused(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body, error.status)


async def _no_such(request: Request, error: HTTPException) -> Response:
    what = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}.")
    return JSONResponse(what.body, what.status, headers=error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _json(request: Request) -> Any:
    """The body. Raises ApiError for one that is no JSON, or too large."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "The body has to be JSON, with the header Content-Type: application/json.")
    body, limit = bytearray(), LIMIT_MIB << 20
    async for part in request.stream():  # to its end, or the client would not read the answer
        body += part[: limit + 1 - len(body)]
    if len(body) > limit:
        raise ApiError(413, f"The body is larger than {LIMIT_MIB} MiB.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is no JSON.") from None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work. Raises ClientDisconnect, and cancels the work, when the client goes away before."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _whole(answer: AsyncIterator[Event]) -> tuple[str, Finished]:
    pieces = []
    async for event in answer:
        if isinstance(event, Finished):
            return "".join(pieces), event
        pieces.append(str(event))
    raise ApiError(500, "The answer did not end.")


def _head(kind: str, first: Started) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": first.state,
        "system_fingerprint": first.fingerprint,
    }


def _usage(end: Finished) -> dict[str, int]:
    prompt, answer = end.prompt_tokens, end.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _chunk(head: dict[str, Any], delta: dict[str, str], reason: str | None = None) -> str:
    return _data({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})


def _data(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def _turns(exchanged: Exchanged) -> list[Message]:
    """The turns before an answer, without system messages. Raises ApiError if they end without a question."""
    prompt = [turn for turn in exchanged.prompt if turn["role"] != "system"]
    if not prompt or prompt[-1]["role"] != "user":
        raise ApiError(400, "The messages have to end with what the user said.", "messages")
    return prompt
