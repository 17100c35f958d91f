"""What a server with OpenAI's interface says of itself: its models, the tokens of a prompt, and log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moltlm.data import endpoint
from moltlm.data.config import ServerConfig
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.types import Message


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a text: its log-probability in nats after what is before it, and whether none is likelier."""

    logprob: float
    is_top: bool


class Server:
    """A server and one of its models.

    Raises:
        BadInput: it cannot be reached, or the model is not named and there are several.
    """

    def __init__(self, config: ServerConfig) -> None:
        from openai import OpenAI

        key = endpoint.key_for(config) or "none"
        options: dict[str, Any] = {"api_key": key, "max_retries": config.retries, "timeout": config.timeout_s}
        self._client = OpenAI(base_url=config.url, **options)
        # what servers add to OpenAI's interface is not below /v1
        self._root = OpenAI(base_url=config.url.rstrip("/").removesuffix("/v1"), **options)
        self.url = config.url
        self.model = config.model or self._only_model()

    def prompt_tokens(self, messages: list[Message]) -> list[int] | None:
        """The tokens to which the server renders a conversation; None where it does not say (llama.cpp and vLLM do)."""
        text = self._post("/apply-template", {"messages": messages})
        if text and isinstance(text.get("prompt"), str):
            body = {"content": text["prompt"], "add_special": True, "parse_special": True}
        else:
            body = {"model": self.model, "messages": messages, "add_generation_prompt": True}
        reply = self._post("/tokenize", body)
        return reply["tokens"] if reply and reply.get("tokens") else None

    def gives_logprobs(self, text: list[int]) -> bool:
        """Whether it says the log-probabilities of a text (vLLM does)."""
        try:
            self.logprobs([text])
        except MoltError:
            return False
        return True

    def logprobs(self, texts: list[list[int]]) -> list[list[TokenLogprob]]:
        """For each text, given as tokens, all of them but the first. Each is a request of its own: vLLM 0.32 on a CPU
        ends at a request of several for an adapter.

        Raises:
            MoltError: the server does not say.
        """
        return [self._echoed(text) for text in texts]

    def _echoed(self, text: list[int]) -> list[TokenLogprob]:
        import openai

        try:
            reply = self._client.completions.create(
                model=self.model, prompt=[text], max_tokens=1, echo=True, logprobs=1, temperature=0
            )
            return _tokens(reply.choices[0].logprobs, len(text))
        except (openai.APIError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = str(error) if isinstance(error, openai.APIError) else "it answered in another form"
            raise MoltError(
                f"{self.url} does not answer with log-probabilities: {reason}", "Look at the server, and repeat."
            ) from error

    def _only_model(self) -> str:
        import openai

        try:
            names = [model.id for model in self._client.models.list().data]
        except openai.AuthenticationError as error:
            raise BadInput(f"{self.url} refuses the key.", "Put a valid one into the environment.") from error
        except openai.APIConnectionError as error:
            raise BadInput(f"No server answers at {self.url}.", "Start it, or correct --served URL") from error
        except openai.APIError as error:
            raise BadInput(f"{self.url} does not list its models: {error}", "Name one: --model NAME") from error
        if len(names) != 1:
            raise BadInput(
                f"{self.url} has {len(names)} models.", f"Name one: --model {' or '.join(names[:10]) or 'NAME'}"
            )
        return names[0]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        import openai

        try:
            reply: Any = self._root.post(path, body=body, cast_to=object)
        except openai.APIError:
            return None
        return reply if isinstance(reply, dict) else None


def _tokens(logprobs: Any, length: int) -> list[TokenLogprob]:
    """Raises ValueError if the reply is not about each token of the text."""
    values, tops = logprobs.token_logprobs[1:length], logprobs.top_logprobs[1:length]
    if len(values) != length - 1 or any(value is None for value in values):
        raise ValueError("tokens are missing")
    return [TokenLogprob(value, value >= max(top.values())) for value, top in zip(values, tops, strict=True)]
