"""`molt serve`: programs that speak OpenAI's interface talk to a tiny real model, while what is in use changes."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from commands import molt
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from moltlm.adapters import card, streaming
from moltlm.adapters.chat_template import without_thought
from moltlm.adapters.rendering import encode_prompt
from moltlm.data.state import BASE, PERSONALITY, PERSONALITY_ADAPTER, Adapter, State
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.service.server import listening
from moltlm.pipeline.stages import routing, serving, tasks

HELLO: Any = [{"role": "user", "content": "hello"}]
SHELL = "personality+shell"


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    engine: Any

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def fetch(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of a plain request."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text, status = response.read().decode(), response.status
        except urllib.error.HTTPError as error:
            text, status = error.read().decode(), error.code
        return status, json.loads(text) if text[:1] in "{[" else text


@contextmanager
def server(trained_project: str, *overrides: str, **options: Any) -> Iterator[Served]:
    """The server in a thread, with a socket of its own."""
    loaded, chosen = load(trained_project, list(overrides)), listening.Settings(**{"port": 0, **options})
    engine = listening.engine_of(loaded, chosen, Console())
    sock = listening.bind(chosen.host, chosen.port)
    running = listening.server_of(listening.application(loaded, chosen, engine, Console()))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield Served(listening.url_of(sock), engine)
    finally:
        running.should_exit = True
        engine.close()
        thread.join(30)
        sock.close()


@pytest.fixture(scope="module")
def plain(trained_project: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that nothing is promoted behind."""
    folder = tmp_path_factory.mktemp("plain")
    with server(
        trained_project, f"registry.folder={folder}/registry", f"retrain.conversations={folder}/chats"
    ) as running:
        yield running


def expected(trained_project: str, state: State, prompt: Any, tokens: int, *overrides: str) -> str:
    run = Run(load(trained_project, list(overrides)), Console())
    run.only_read = True
    model = serving.serve(run, state)
    with model.state(state):
        return model.generate([prompt], tokens, 1)[0]


# --- answers


def test_a_server_behind_this_one_that_does_not_answer_is_said_at_start(
    trained_project: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sock = listening.bind("127.0.0.1", 0)
    url = listening.url_of(sock)
    sock.close()
    with server(trained_project, engine=url) as running:
        assert f"No server answers at {url}/v1" in " ".join(capsys.readouterr().err.split())
        assert running.fetch("/v1/models")[0] == 502
    with server(trained_project) as behind, server(trained_project, engine=behind.url):
        assert "No server answers" not in capsys.readouterr().err


def test_every_state_answers_as_it_was_measured(plain: Served, trained_project: str) -> None:
    client = plain.client()
    names = [model.id for model in client.models.list().data]
    assert names == ["personality", "base", "personality+reminders", SHELL]
    assert client.models.retrieve(SHELL).id == SHELL
    texts = []
    for state in (BASE, PERSONALITY, State.parse(SHELL)):
        answer = client.chat.completions.create(model=str(state), messages=HELLO, max_tokens=8)
        texts.append(answer.choices[0].message.content)
        assert texts[-1] == expected(trained_project, state, HELLO, 8) and answer.model == str(state)
    assert len(set(texts)) == 3


def test_pieces_are_the_answer_and_usage_is_counted(plain: Served, trained_project: str) -> None:
    client = plain.client()
    whole = client.chat.completions.create(model=SHELL, messages=HELLO, max_tokens=12)
    stream = client.chat.completions.create(
        model=SHELL, messages=HELLO, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content and len(list(filter(None, pieces))) > 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    run = Run(load(trained_project), Console())
    usage: Any = whole.usage
    assert usage.prompt_tokens == len(encode_prompt(run.base.tokenizer, HELLO))
    assert whole.choices[0].finish_reason == "length" and usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + 12


def test_the_last_line_of_a_stream_is_done(plain: Served) -> None:
    status, text = plain.fetch(
        "/v1/chat/completions", {"model": "base", "messages": HELLO, "max_tokens": 3, "stream": True}
    )
    assert status == 200 and text.endswith("data: [DONE]\n\n")
    assert all(line.startswith("data: ") for line in text.split("\n\n")[:-1])


def test_a_seed_repeats_and_settings_change_the_answer(plain: Served) -> None:
    def say(**options: Any) -> str:
        answer = plain.client().chat.completions.create(
            model="base", messages=HELLO, **{"max_tokens": 12, "temperature": 1.5, **options}
        )
        return answer.choices[0].message.content or ""

    assert say(seed=1) == say(seed=1) != say(seed=2)
    assert say() != say()  # without a seed, samples differ
    assert say(temperature=0) == say(temperature=1.5, top_p=0, seed=3)
    text = say(seed=1)
    assert say(seed=1, stop=text[4:6]) == text[: text.index(text[4:6])].rstrip()
    assert say(seed=1, max_completion_tokens=2, max_tokens=openai.omit) != text


def test_strength_is_of_one_request(plain: Served) -> None:
    def say(model: str, scale: float | None) -> str | None:
        extra = {} if scale is None else {"adapter_scale": scale}
        answer = plain.client().chat.completions.create(model=model, messages=HELLO, max_tokens=8, extra_body=extra)
        return answer.choices[0].message.content

    full = say(SHELL, None)
    assert say(SHELL, 0.0) == say("base", None) != full
    assert say(SHELL, 1.0) == say(SHELL, None) == full
    with pytest.raises(openai.BadRequestError, match="adapter_scale"):
        say(SHELL, 9.0)


@pytest.mark.parametrize("method", ["learned", "arrow"])
def test_a_router_picks_where_there_is_one(trained_project: str, tmp_path: Path, method: str) -> None:
    """For a request, or within the model for each token."""
    setting = f"router.method={method}"
    run = Run(load(trained_project, [setting]), Console())
    names = (Adapter("reminders"), Adapter("shell"))
    fitted = routing.router(run, names)
    state = State(PERSONALITY.adapters, names)
    run.close()
    with server(trained_project, setting, f"registry.folder={tmp_path}/registry") as running:
        assert "auto" in [model.id for model in running.client().models.list().data]
        answer = running.client().chat.completions.create(model="auto", messages=HELLO, max_tokens=8)
        assert answer.choices[0].message.content == expected(trained_project, state, HELLO, 8, setting)
        routed = (str(state),) if method == "arrow" else ("personality", "personality+reminders", SHELL)
        assert answer.model in routed
    shutil.rmtree(fitted.folder)


# --- what clients send


OPEN_WEBUI = {
    "stream": True,
    "model": "personality",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ],
    "stream_options": {"include_usage": True},
    "metadata": {"chat_id": "1", "features": {}},
    "options": {},
    "tool_ids": [],
    "max_tokens": 3,
}
SILLY_TAVERN = {
    "messages": [
        {"role": "system", "content": "Write the next reply."},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "what should i do", "name": "Ann"},
        {"role": "system", "content": "Stay brief."},
    ],
    "model": "personality",
    "temperature": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "top_p": 1,
    "max_tokens": 3,
    "stream": False,
    "logit_bias": {},
    "stop": ["\nAnn:"],
    "n": 1,
    "logprobs": False,
    "tools": [],
    "user": None,
    "seed": -1,
    "chat_completion_source": "openai",
}


@pytest.mark.parametrize("body", [OPEN_WEBUI, SILLY_TAVERN])
def test_clients_are_answered(plain: Served, body: dict[str, Any]) -> None:
    status, answer = plain.fetch("/v1/chat/completions", body, Authorization="Bearer sk-whatever")
    assert status == 200
    assert answer.endswith("[DONE]\n\n") if body["stream"] else answer["choices"][0]["message"]["role"] == "assistant"


def test_a_begun_answer_is_continued(plain: Served, trained_project: str) -> None:
    prompt: Any = [*HELLO, {"role": "assistant", "content": "rain tea"}]
    answer = plain.client().chat.completions.create(model="base", messages=prompt, max_tokens=6)
    assert (answer.choices[0].message.content or "").strip() == expected(trained_project, BASE, prompt, 6)


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"n": 2}, 400, "n has to be 1"),
        ({"tools": [{"type": "function"}]}, 400, "Tools are not supported"),
        ({"model": "gpt"}, 404, "no model 'gpt'"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role 'tool'"),
        ({"messages": [{"role": "text", "content": "x"}]}, 400, "role 'text'"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "needs a content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "Only text"),
        ({"messages": [{"role": "user", "content": "tea " * 600}]}, 400, "room for 512"),
        ({"temperature": 3}, 400, "temperature"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"response_format": {"type": "json_object"}}, 400, "plain text"),
        ({"logprobs": True}, 400, "Log-prob"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_said_in_openai_form(
    plain: Served, change: dict[str, Any], status: int, word: str, stream: bool
) -> None:
    body = {"model": "base", "messages": HELLO, "max_tokens": 3, "stream": stream, **change}
    code, answer = plain.fetch("/v1/chat/completions", body)
    assert code == status and word in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_what_is_no_request_is_refused(plain: Served) -> None:
    assert plain.fetch("/v1/chat/completions", b"{")[0] == plain.fetch("/v1/chat/completions", b"[" * 9999)[0] == 400
    assert plain.fetch("/v1/chat/completions", b"{}", Content_Type="text/plain")[0] == 415
    assert plain.fetch("/v1/chat/completions", b" " * (9 << 20))[0] == 413
    assert plain.fetch("/v1/chat/completions")[0] == 405
    status, answer = plain.fetch("/v1/nothing")
    assert status == 404 and answer["error"]["type"] == "invalid_request_error"
    assert plain.fetch("/health") == (200, {"status": "ok"})


# --- one model: queue, clients that leave, promotions


def test_a_client_that_leaves_ends_its_answer(plain: Served) -> None:
    """Three long answers are dropped, one while it waits; the next one does not wait for them to end."""

    def ask(stream: bool) -> socket.socket:
        body = json.dumps({"model": "base", "messages": HELLO, "max_tokens": 450, "temperature": 2, "stream": stream})
        host, _, port = plain.url.removeprefix("http://").partition(":")
        sock = socket.create_connection((host, int(port)))
        sock.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        return sock

    tokens: list[str] = []
    one, other, third = ask(True), ask(False), ask(True)
    assert b"200 OK" in one.recv(100)
    advance = streaming.Visible.advance

    def count(self: Any, generated: str, final: bool = False) -> str:
        tokens.append(generated)
        return advance(self, generated, final)

    streaming.Visible.advance = count  # type: ignore[method-assign]
    try:
        for sock in (third, one, other):
            sock.close()
        plain.client().chat.completions.create(model="base", messages=HELLO, max_tokens=2)
    finally:
        streaming.Visible.advance = advance  # type: ignore[method-assign]
    assert len(tokens) < 450


def retrained(adapter: Path, folder: Path) -> Path:
    """A copy of an adapter whose weights are others."""
    shutil.copytree(adapter, folder, ignore=shutil.ignore_patterns("artifact.json", "inputs.json"))
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: value * -40 for name, value in weights.items()}, folder / "adapter_model.safetensors")
    card.write(folder, card.Manifest(**json.loads((folder / card.MANIFEST).read_text())))
    return folder


def test_a_promotion_takes_effect_with_the_next_request(trained_project: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    run = Run(load(trained_project), Console())
    own, shell = (tasks.trained(run, adapter).folder for adapter in (PERSONALITY_ADAPTER, Adapter("shell")))
    run.close()
    for folder in (own, shell):
        registry.promote(registry.add(folder, {}).id)
    other = registry.add(retrained(own, tmp_path / "other"), {}).id
    with server(trained_project, f"registry.folder={tmp_path}/registry") as running:
        client = running.client()
        long: Any = {"model": "personality", "messages": HELLO, "max_tokens": 100}
        assert client.models.list().data[0].id == SHELL  # what is in use
        before = client.chat.completions.create(**long)
        stream = client.chat.completions.create(**long, stream=True)
        pieces = [next(stream)]
        registry.promote(other)
        pieces += list(stream)
        assert "".join(each.choices[0].delta.content or "" for each in pieces) == before.choices[0].message.content
        after = client.chat.completions.create(**{**long, "model": openai.omit})
        assert after.system_fingerprint == other != before.system_fingerprint
        assert after.choices[0].message.content != before.choices[0].message.content
        assert [model.id for model in client.models.list().data] == ["personality", "base"]
        assert len(running.engine._served.adapters) == 1  # the former are freed
        registry.rollback()
        assert client.chat.completions.create(**long).choices == before.choices
        assert client.models.list().data[0].id == SHELL

        (registry.path(other) / "adapter_model.safetensors").write_bytes(b"damaged")
        state = registry.folder / "registry.json"
        text = state.read_text()
        state.write_text("{}")
        assert client.chat.completions.create(**long).choices == before.choices
        assert "could not be loaded" in running.fetch("/health")[1]["trouble"]
        state.write_text(text)
        assert client.chat.completions.create(**long).choices == before.choices
        assert running.fetch("/health")[1] == {"status": "ok"}
    with server(trained_project, f"registry.folder={tmp_path}/registry", own=True) as running:
        assert running.client().models.list().data[0].id == "personality"


def test_adapters_that_cannot_be_loaded_leave_the_old_ones(trained_project: str, tmp_path: Path) -> None:
    """The weights of the new personality are damaged after it was promoted."""
    registry = Registry(tmp_path / "registry")
    run = Run(load(trained_project), Console())
    own = tasks.trained(run, PERSONALITY_ADAPTER).folder
    run.close()
    registry.promote(registry.add(own, {}).id)
    other = registry.add(retrained(own, tmp_path / "other"), {}).id
    with server(trained_project, f"registry.folder={tmp_path}/registry") as running:
        ask: Any = {"model": "personality", "messages": HELLO, "max_tokens": 8}
        before = running.client().chat.completions.create(**ask)
        registry.promote(other)
        (registry.path(other) / "adapter_model.safetensors").write_bytes(b"damaged")
        after = running.client().chat.completions.create(**ask)
        assert after.choices == before.choices and after.system_fingerprint == before.system_fingerprint
        assert "those before them answer" in running.fetch("/health")[1]["trouble"]


# --- who may ask


def test_other_names_and_other_sites_are_refused(plain: Served) -> None:
    port = plain.url.rpartition(":")[2]
    for headers, status in [
        ({}, 200),
        ({"Host": f"localhost:{port}"}, 200),
        ({"Host": f"[::1]:{port}"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": f"127.0.0.1.evil.example:{port}"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": plain.url}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": f"http://localhost:{port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
    ]:
        assert plain.fetch("/v1/models", **headers)[0] == status, headers
        assert plain.fetch("/health", **headers)[0] == status, headers
    request = urllib.request.Request(f"{plain.url}/v1/models", headers={"Origin": plain.url})
    with urllib.request.urlopen(request) as response:
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_a_key_is_needed_where_others_can_ask(
    trained_project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert molt("serve", trained_project, "--host", "0.0.0.0") == 2
    assert "--key-env" in capsys.readouterr().err
    assert molt("serve", trained_project, "--key-env", "MOLT_TEST_KEY") == 2
    assert "MOLT_TEST_KEY holds no key" in capsys.readouterr().err
    monkeypatch.setenv("MOLT_TEST_KEY", "secret")
    with server(
        trained_project, f"registry.folder={tmp_path}/registry", host="0.0.0.0", key_env="MOLT_TEST_KEY"
    ) as running:
        running = Served(running.url.replace("0.0.0.0", "127.0.0.1"), running.engine)
        with pytest.raises(openai.AuthenticationError):
            running.client("wrong").models.list()
        assert running.client("secret").models.list().data
        assert running.fetch("/molt/about")[0] == 401
        assert running.fetch("/v1/models", Host="box.lan", Authorization="Bearer secret")[0] == 200
        assert running.fetch("/v1/models", Origin="http://evil.example", Authorization="Bearer secret")[0] == 403
        assert running.fetch("/health")[0] == 200


def test_what_cannot_be_listened_on_is_said(trained_project: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert molt("serve", trained_project, "--port", str(taken.getsockname()[1])) == 2
    assert "--port 0" in capsys.readouterr().err
    assert molt("serve", trained_project, "--host", "no.such.host.invalid", "--key-env", "HOME") == 2
    assert "--host 127.0.0.1" in capsys.readouterr().err
    assert molt("serve", trained_project, "--port", "0", "--engine", "nonsense") == 2
    assert "neither local nor a URL" in capsys.readouterr().err
    assert (
        molt("serve", trained_project, "--port", "0", "--keep", "--engine", "http://x", "retrain.conversations=a.jsonl")
        == 2
    )
    assert "Name a folder" in capsys.readouterr().err


def test_nothing_is_trained(trained_project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert molt("serve", trained_project, "--port", "0", f"run.folder={tmp_path / 'empty'}") == 1
    assert "molt run" in capsys.readouterr().err


def test_a_share_of_votes_has_its_interval(plain: Served) -> None:
    status, score = plain.fetch("/molt/score", {"wins": 8, "losses": 2})
    assert status == 200 and score["n"] == 10 and score["mean"] == 0.8
    assert score["low"] == pytest.approx(0.4902, abs=1e-4) and score["high"] == pytest.approx(0.9433, abs=1e-4)
    assert plain.fetch("/molt/score", {"wins": 0, "losses": 0}) == (200, {"n": 0})
    assert plain.fetch("/molt/score", {"wins": -1, "losses": 0})[0] == 400


# --- another server behind this one


def test_another_server_answers_under_our_names(plain: Served, trained_project: str, tmp_path: Path) -> None:
    places = [f"registry.folder={tmp_path}/registry", f"retrain.conversations={tmp_path}/chats"]
    with server(trained_project, *places, engine=plain.url, keep=True) as front:
        client = front.client()
        names = {model.id for model in client.models.list().data}
        assert names == {model.id for model in plain.client().models.list().data}
        ask: Any = {"model": SHELL, "messages": HELLO, "max_tokens": 6}
        through, direct = (each.client().chat.completions.create(**ask) for each in (front, plain))
        assert through.choices == direct.choices and through.usage == direct.usage
        pieces = list(client.chat.completions.create(**ask, stream=True))
        assert "".join(each.choices[0].delta.content or "" for each in pieces) == direct.choices[0].message.content
        with pytest.raises(openai.NotFoundError, match="no model"):
            client.chat.completions.create(**{**ask, "model": "gpt"})
        assert (
            front.fetch("/v1/chat/completions", {**ask, "messages": [{"role": "user", "content": "tea " * 600}]})[0]
            == 400
        )
    with server(trained_project, *places, engine="http://127.0.0.1:9") as front:
        status, answer = front.fetch("/v1/models")
        assert status == 502 and "does not answer" in answer["error"]["message"]


# --- pieces of text


PARTS = st.lists(st.sampled_from(["<think>", "<thi", "nk>", "STOP", "ST", " ", "\n", "a", "<", "é"]), max_size=8)


@settings(deadline=None)
@given(PARTS, st.none() | PARTS, st.booleans())
def test_pieces_are_what_a_whole_answer_would_be(parts: list[str], thought: list[str] | None, has_stop: bool) -> None:
    """With a thought before the answer, without one, and with one that is cut off."""
    raw = ("" if thought is None else f"<think>{''.join(thought)}</think>") + "".join(parts)
    visible, shown = streaming.Visible(("STOP",) if has_stop else ()), ""
    for end in range(len(raw) + 1):
        shown += visible.advance(raw[:end])
        if visible.stopped:
            break
    shown += visible.advance(raw[:end], final=True)
    whole = without_thought(raw)
    assert shown == (whole.partition("STOP")[0].rstrip() if has_stop else whole)


def test_half_characters_and_opened_thoughts_wait() -> None:
    visible = streaming.Visible()
    assert visible.advance("tea \ufffd") == "tea" and visible.advance("tea é") == " é"
    visible = streaming.Visible(thinking=True)
    assert visible.advance("why not") == "" and visible.advance("why not</think>\n\ntea") == "tea"
