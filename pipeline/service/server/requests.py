"""What a client may ask for, in the form of OpenAI's chat completions, and errors in the form of its API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moltlm.data.types import Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MAX_SCALE = 2.0
Body = TypeVar("Body", bound=BaseModel)


class ApiError(Exception):
    """What a client is told. `status` is the HTTP status, the rest as in OpenAI's errors."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, kind: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind = kind or ("server_error" if status >= 500 else "invalid_request_error")

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def unknown_model(name: str, names: Iterable[str]) -> ApiError:
    message = f"There is no model {name[:80]!r}. There are: {', '.join(names)}."
    return ApiError(404, message, "model", "model_not_found")


class ChatMessage(BaseModel):
    """A message as clients send it: a text, or a list of parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[Any] | None = None

    def message(self, place: int) -> Message:
        """The message as it is rendered. Raises ApiError for what is no text."""
        param = f"messages.{place}"
        if self.role not in ROLES:
            raise ApiError(400, f"Messages of the role {self.role[:40]!r} are not supported.", f"{param}.role")
        if self.tool_calls:
            raise ApiError(400, "Calls of tools are not supported.", f"{param}.tool_calls")
        return {"role": ROLES[self.role], "content": self._text(f"{param}.content")}

    def _text(self, param: str) -> str:
        if isinstance(self.content, str):
            return self.content
        if self.content is None:
            raise ApiError(400, "A message needs a content.", param)
        if any(not isinstance(part.get("text"), str) for part in self.content):
            raise ApiError(400, "Only text can be read, no images, files or sounds.", param)
        return "\n".join(part["text"] for part in self.content)


class StreamOptions(BaseModel):
    include_usage: bool = False


class ResponseFormat(BaseModel):
    type: str = "text"


class ChatRequest(BaseModel):
    """The body of a request. Fields that it does not name are accepted and ignored.

    Attributes:
        model: a state's name; empty for what is in use.
        store: false leaves the conversation out of what is kept for retraining.
        adapter_scale: strength of the state's adapters for this answer; not in OpenAI's API.
    """

    model_config = ConfigDict(frozen=True)

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Any = None
    logprobs: bool | int | None = None
    response_format: ResponseFormat | None = None
    store: bool | None = None
    adapter_scale: float | None = Field(default=None, ge=0, le=MAX_SCALE)

    @property
    def prompt(self) -> list[Message]:
        return [each.message(place) for place, each in enumerate(self.messages)]

    @property
    def stops(self) -> tuple[str, ...]:
        texts = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(filter(None, texts))

    @property
    def limit(self) -> int | None:
        """The largest length of the answer, in tokens."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def parse(body: Any) -> ChatRequest:
    """The request in a JSON body. Raises ApiError for one that is malformed, or asks for what cannot be had."""
    request = validated(ChatRequest, body)
    if request.n is not None and request.n != 1:
        raise ApiError(400, "One answer is given to a request: n has to be 1.", "n")
    if (request.tools or request.functions) and request.tool_choice != "none":
        raise ApiError(400, "Tools are not supported.", "tools" if request.tools else "functions")
    if request.logprobs:
        raise ApiError(400, "Log-probabilities are not given.", "logprobs")
    if request.response_format and request.response_format.type != "text":
        raise ApiError(400, "Only answers in plain text are given.", "response_format")
    if not any(message["content"].strip() for message in request.prompt):
        raise ApiError(400, "All messages are empty.", "messages")
    return request


class Exchanged(BaseModel):
    """An answer of a conversation, as the page sends it back: the turns before it, and what was said."""

    messages: list[ChatMessage] = Field(min_length=1)
    answer: str = Field(min_length=1)
    model: str = ""

    @property
    def prompt(self) -> list[Message]:
        return [each.message(place) for place, each in enumerate(self.messages)]


class Thumb(Exchanged):
    """What the user thinks of an answer; null takes a thumb back."""

    thumb: Literal["up", "down"] | None = None


class Edited(Exchanged):
    """A better version of an answer."""

    better: str


class Score(BaseModel):
    """Votes between two states; ties are left out."""

    wins: int = Field(ge=0)
    losses: int = Field(ge=0)


def validated(kind: type[Body], body: Any) -> Body:
    """The body as this type. Raises ApiError naming the first field that is wrong."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise ApiError(400, f"{param or 'The body'}: {first['msg']}.", param) from None
