"""Another server behind this one: llama-server, vLLM, or any other with OpenAI's interface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.state import BASE, PERSONALITY
from moltlm.pipeline.service.server.engine import Event, Finished, Offer, Started
from moltlm.pipeline.service.server.requests import ApiError, ChatRequest, unknown_model

PATIENCE_S = 5.0


class Upstream:
    """Implements `engine.Engine` by passing requests on, under the names that the other server has.

    The only model of a server is `personality` here. Of several, each keeps its name, but for the one whose name is a
    path or a repository: it is `base`.
    """

    trouble = ""

    def __init__(self, url: str) -> None:
        import openai

        self._url, self._client = url, openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    async def offer(self) -> Offer:
        names = await self._names()
        return Offer(tuple(names), next(reversed(names)))

    async def answer(self, request: ChatRequest) -> AsyncIterator[Event]:
        import openai

        names = await self._names()
        name = request.model or next(reversed(names))
        if name not in names:
            raise unknown_model(name, names)
        if request.adapter_scale not in (None, 1.0):
            raise ApiError(400, "The server behind this one has no strength of adapters.", "adapter_scale")
        reason, prompt_tokens, completion_tokens = "stop", 0, 0
        try:
            stream = await self._client.chat.completions.create(**_body(request, names[name]))
            yield Started(name, names[name], is_learned=name != str(BASE))
            async with stream:
                async for chunk in stream:
                    if chunk.usage:
                        prompt_tokens, completion_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
                    for choice in chunk.choices[:1]:
                        reason = choice.finish_reason or reason
                        if choice.delta.content:
                            yield choice.delta.content
        except openai.APIStatusError as error:
            raise ApiError(error.status_code, f"{self._url} says: {error.message}") from None
        except openai.APIError as error:
            raise ApiError(502, f"{self._url} does not answer: {error.message}") from None
        yield Finished(reason, prompt_tokens, completion_tokens)

    def close(self) -> None:
        """Nothing is running here."""

    async def _names(self) -> dict[str, str]:
        """The other server's models by the names that they have here, the default last."""
        import openai

        try:
            models = [model.id async for model in self._client.models.list()]
        except openai.APIError as error:
            raise ApiError(502, f"{self._url} does not answer: {error.message}") from None
        if not models:
            raise ApiError(502, f"{self._url} has no model.")
        if len(models) == 1:
            return {str(PERSONALITY): models[0]}
        return {str(BASE) if "/" in name else name: name for name in models}


def unreachable(url: str) -> str:
    """Why requests to a server fail; empty if it answers."""
    import openai

    try:
        openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE_S).models.list()
    except openai.APIConnectionError:
        return f"No server answers at {url}: start one there; until then every request fails."
    except openai.APIError as error:
        return f"{url} does not list its models, so requests fail: {error.message}"
    return ""


def _body(request: ChatRequest, model: str) -> dict[str, Any]:
    """What the other server is asked for: the same, as a stream with counts of tokens."""
    fields = request.model_dump(
        exclude_none=True, include={"temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed"}
    )
    return {
        **fields,
        "model": model,
        "messages": request.prompt,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def check_url(url: str) -> str:
    """The URL with its `/v1`. Raises BadInput for anything that is no URL."""
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"{url} is neither local nor a URL.", "Use --engine local, or --engine http://127.0.0.1:8080/v1")
    return url.rstrip("/") if url.rstrip("/").endswith("/v1") else f"{url.rstrip('/')}/v1"
