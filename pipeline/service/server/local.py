"""The model in this process: one answer at a time, in the order of the requests, by what is in use."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from jinja2 import TemplateError

from moltlm.adapters import base, streaming
from moltlm.adapters.rendering import encode_prompt
from moltlm.adapters.serve import Served
from moltlm.data.errors import MoltError
from moltlm.data.state import PERSONALITY_ADAPTER, Adapter, State
from moltlm.data.types import Message
from moltlm.pipeline.config import Config
from moltlm.pipeline.console import Console
from moltlm.pipeline.service.server import catalogue as catalogues
from moltlm.pipeline.service.server.catalogue import Catalogue
from moltlm.pipeline.service.server.engine import Event, Finished, Offer, Started
from moltlm.pipeline.service.server.requests import ApiError, ChatRequest, unknown_model

Tell = Callable[[Event | ApiError], None]


class Local:
    """Implements `engine.Engine` with the run's base and its adapters.

    A single thread answers, so requests wait for each other, and adapters change between two answers only. The base is
    loaded once. New adapters are loaded beside the old ones, which are freed when all new ones are there.
    """

    def __init__(self, config: Config, console: Console, own: bool, max_new_tokens: int) -> None:
        self._config, self._console, self._own, self._max_new_tokens = config, console, own, max_new_tokens
        self._stamp = catalogues.stamp(config.registry.folder)
        self._catalogue = catalogues.read(config, console, own)
        self._served = Served(base.load(config.model))
        self._loaded: dict[str, str] = {}
        self._load(self._catalogue)
        self._worker = ThreadPoolExecutor(1, "answers")
        self._closing = threading.Event()
        self.trouble = ""

    async def offer(self) -> Offer:
        return Offer(tuple(self._catalogue.states), self._catalogue.default)

    async def answer(self, request: ChatRequest) -> AsyncIterator[Event]:
        loop, events, gone = asyncio.get_running_loop(), asyncio.Queue[Event | ApiError](), threading.Event()

        def tell(event: Event | ApiError) -> None:
            with suppress(RuntimeError):  # the loop has ended with the server
                loop.call_soon_threadsafe(events.put_nowait, event)

        self._worker.submit(self._reply, request, tell, lambda: gone.is_set() or self._closing.is_set())
        try:
            while True:
                event = await events.get()
                if isinstance(event, ApiError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            gone.set()

    def close(self) -> None:
        """End the running answer, and forget those that wait."""
        self._closing.set()
        self._worker.shutdown(cancel_futures=True)

    def _reply(self, request: ChatRequest, tell: Tell, is_cancelled: Callable[[], bool]) -> None:
        """Answer a request in the worker's thread, and tell everything, errors too."""
        if is_cancelled():
            return
        try:
            self._refresh()
            self._generate(request, tell, is_cancelled)
        except ApiError as error:
            tell(error)
        except Exception as error:  # memory, a device: the server goes on with the next request
            self._console.error(f"An answer failed: {error}", "")
            tell(ApiError(500, f"The answer failed: {type(error).__name__}."))

    def _generate(self, request: ChatRequest, tell: Tell, is_cancelled: Callable[[], bool]) -> None:
        prompt = request.prompt
        state = self._state_for(request.model, prompt)
        length = self._length(prompt)
        scale = 1.0 if request.adapter_scale is None else request.adapter_scale
        is_learned = scale == 1.0 and PERSONALITY_ADAPTER in state.adapters
        tell(Started(str(state), self._catalogue.fingerprint(state), is_learned))
        with self._active(state, scale):
            answer = streaming.stream(self._served, prompt, self._options(request, length), tell, is_cancelled)
        if answer.finish == "cancelled":
            raise ApiError(503, "The server is being stopped.")
        tell(Finished(answer.finish, length, answer.tokens))

    def _state_for(self, name: str | None, prompt: list[Message]) -> State:
        """The state with this name, with the adapter that the router picks for the prompt."""
        catalogue = self._catalogue
        state = catalogue.states.get(name or catalogue.default)
        if state is None:
            raise unknown_model(name or catalogue.default, catalogue.states)
        if catalogue.router is None or not state.routes:
            return state
        (route,) = catalogue.router.route(self._served.embed([prompt[-1]["content"]]))
        return state.routed_to(Adapter(route) if route else None)

    def _length(self, prompt: list[Message]) -> int:
        """How many tokens a prompt has. Raises ApiError for one that leaves no room for an answer."""
        try:
            length = len(encode_prompt(self._served.tokenizer, prompt))
        except (TemplateError, ValueError) as error:
            raise ApiError(400, f"The model's chat template refuses the messages: {error}.", "messages") from None
        if length >= (room := streaming.context(self._served)):
            message = f"The messages have {length} tokens, and with the answer there is room for {room}."
            raise ApiError(400, message, "messages", "context_length_exceeded")
        return length

    def _options(self, request: ChatRequest, length: int) -> streaming.Options:
        room = streaming.context(self._served) - length
        return streaming.Options(
            max_new_tokens=min(request.limit or self._max_new_tokens, room),
            temperature=request.temperature or 0.0,
            top_p=1.0 if request.top_p is None else request.top_p,
            stop=request.stops,
            seed=secrets.randbits(32) if request.seed is None else request.seed % 2**63,
        )

    @contextmanager
    def _active(self, state: State, scale: float) -> Iterator[None]:
        """Serve a state with its adapters at a strength."""
        names = [self._loaded[str(each)] for each in state.gated]
        try:
            for name in names:
                self._served.scale(name, scale)
            with self._served.state(State(tuple(map(Adapter, names)))):
                yield
        finally:
            for name in names:
                self._served.scale(name, 1.0)

    def _refresh(self) -> None:
        """Take what is in use now, if the registry has changed. Where that fails, what is loaded goes on."""
        stamp = catalogues.stamp(self._config.registry.folder)
        if self._own or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load(catalogues.read(self._config, self._console, self._own))
            self.trouble = ""
        except Exception as error:  # whatever is wrong with the new adapters, the old ones answer
            reason = error.what if isinstance(error, MoltError) else f"{type(error).__name__}: {error}"
            self.trouble = f"The adapters in use could not be loaded, and those before them answer: {reason}"
            self._console.error(self.trouble, "")

    def _load(self, catalogue: Catalogue) -> None:
        """Load the adapters of a catalogue, and then free all others. If one cannot be loaded, nothing changes."""
        before = set(self._served.adapters)
        loaded = {name: f"{name}@{artifact.fingerprint}" for name, artifact in catalogue.adapters.items()}
        try:
            for name, unique in loaded.items():
                if unique not in self._served.adapters:
                    self._served.load(unique, catalogue.adapters[name].folder)
        except BaseException:
            self._unload(set(self._served.adapters) - before)
            raise
        self._catalogue, self._loaded = catalogue, loaded
        self._unload(before - set(loaded.values()))

    def _unload(self, names: set[str]) -> None:
        for name in names:
            self._served.unload(name)
