"""The gate on what a server answers: a real tiny model behind HTTP, as trained, or not."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from moltlm.adapters.rendering import encode_prompt
from moltlm.data.errors import BadInput
from moltlm.data.served import Server
from moltlm.data.state import BASE, PERSONALITY, State
from moltlm.evals.config import ServedConfig
from moltlm.evals.records import ItemRecord
from moltlm.pipeline import cli
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import served as module
from moltlm.pipeline.stages import measures
from moltlm.pipeline.stages.serving import serve

ALL = ("/tokenize", "/v1/completions")


class Handler(BaseHTTPRequestHandler):
    """vLLM's and OpenAI's routes, as far as `routes` has them; chat is always there."""

    model: Any
    state: State
    routes: tuple[str, ...]
    wrong: str
    lock = threading.Lock()

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "it", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock, self.model.state(self.state):
            if self.path == "/v1/chat/completions":
                self._chat(body)
            elif self.path not in self.routes:
                self._send(404, {"error": "no such route"})
            elif self.path == "/tokenize":
                self._send(200, {"tokens": encode_prompt(self.model.tokenizer, body["messages"])[len(self.wrong) :]})
            else:
                self._send(200, {"choices": [self._echo(i, row) for i, row in enumerate(body["prompt"])]})

    def _chat(self, body: dict[str, Any]) -> None:
        assert body["temperature"] == 0 and body["store"] is False
        if self.wrong == "fails":
            self._send(400, {"error": {"message": "too long"}})
            return
        answer = self.model.generate([body["messages"]], body["max_tokens"], 1)[0]
        self._send(200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}]})

    @torch.no_grad()
    def _echo(self, index: int, row: list[int]) -> dict[str, Any]:
        scores = torch.log_softmax(self.model.model(input_ids=torch.tensor([row])).logits[0].float(), -1)
        values = [None, *(float(scores[i, token]) for i, token in enumerate(row[1:]))]
        tops = [None, *({"top": float(scores[i].max())} for i in range(len(row) - 1))]
        return {"index": index, "logprobs": {"token_logprobs": [*values, -1.0], "top_logprobs": [*tops, {"x": -1.0}]}}

    def _send(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FewEchoes:
    """Log-probabilities of three texts, and of none after that."""

    def __init__(self, echo: Any) -> None:
        self.echo, self.left = echo, 3

    def __get__(self, handler: Handler, owner: type[Handler]) -> Any:
        self.left -= 1
        return functools.partial(self.echo, handler) if self.left >= 0 else lambda index, row: {"index": index}


@contextmanager
def serving(model: Any, state: State, routes: tuple[str, ...] = ALL, wrong: str = "") -> Iterator[str]:
    handler = type("Bound", (Handler,), {"model": model, "state": state, "routes": routes, "wrong": wrong})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def run(tiny_project: Path) -> Iterator[Run]:
    opened = Run(load(str(tiny_project / "project.yaml")), Console())
    for state in (BASE, PERSONALITY):
        measures.persona_of(opened, state)
        measures.capability(opened, state)
    model = serve(opened, PERSONALITY)
    opened.close()  # another process gates
    opened._served = model
    yield opened
    opened.close()


def gate(run: Run, project: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any], str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["gate", str(project / "project.yaml"), *options, "--json"])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), json.loads(said.out or "{}"), said.err


def test_what_is_served_as_trained_loses_nothing(
    run: Run, tiny_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(run.base, PERSONALITY) as url:
        _, value, _ = gate(run, tiny_project, capsys, "--served", url)
    checks = {check["name"]: check for check in value["verdict"]["checks"]}
    assert set(checks) == {"capability", "persona", "coherence"} and value["capability"]
    assert all(check["difference"] == 0 for check in checks.values())
    assert value["rendering"] == {"same": 6, "of": 6} and value["model"] == "it"


def test_each_item_is_that_of_the_served_state(
    run: Run, tiny_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = {state: measures.load(measures.capability(run, state), ItemRecord) for state in (BASE, PERSONALITY)}
    with serving(run.base, BASE) as url:
        items = module.ability(run, Server(run.config.served.model_copy(update={"url": url})))
        _, same, _ = gate(run, tiny_project, capsys, "--served", url, "--against", "base")
    wanted = [item.logprob for item in stored[BASE]]
    assert [item.logprob for item in items] == pytest.approx(wanted, abs=1e-3)
    assert [item.logprob for item in stored[PERSONALITY]] != pytest.approx(wanted, abs=1e-3)
    checks = {check["name"]: check for check in same["verdict"]["checks"]}
    assert set(checks) == {"capability", "persona", "coherence", "new skill"} and not same["passed"]
    assert all(check["difference"] == 0 for check in checks.values())


def test_other_tokens_and_missing_log_probabilities_are_said(
    run: Run, tiny_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(run.base, PERSONALITY, ("/tokenize",), wrong="x") as url:
        code, value, said = gate(run, tiny_project, capsys, "--served", url)
    assert code == 3 and value["rendering"]["same"] == 0 and not value["capability"]
    assert "did not pass the gate against personality as trained" in said and "less loss" in said
    with serving(run.base, PERSONALITY, ()) as url:
        _, value, said = gate(run, tiny_project, capsys, "--served", url)
    assert value["rendering"]["same"] is None and not value["capability"]
    assert "less loss" not in said and "hold out more prompts" in said  # nothing was shown to be lost


def test_a_server_that_cannot_be_judged(run: Run, tiny_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(run.base, PERSONALITY, wrong="fails") as url:
        code, _, said = gate(run, tiny_project, capsys, "--served", url)
    assert code == 1 and "too long" in said
    code, _, said = gate(run, tiny_project, capsys, "--served", url, "served.retries=0")
    assert code == 2 and "No server answers" in said
    code, _, said = gate(run, tiny_project, capsys, "--served", url, "--against", "moon")
    assert code == 2 and "--against base" in said
    for option in (["--model", "it"], ["--against", "base"], ["--state", "base"]):
        code, _, said = gate(run, tiny_project, capsys, *option)
        assert code == 2 and "--served URL" in said


def test_a_key_is_not_sent_to_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(BadInput, match="only to hosts that you name"):
        Server(ServedConfig(url="https://stranger.example/v1", model="m"))


def test_log_probabilities_that_end_half_way_are_an_error(
    run: Run, tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(run.base, PERSONALITY) as url:
        server = Server(ServedConfig(url=url, retries=0))
        assert [len(row) for row in server.logprobs([[5, 6, 7]] * 20)] == [2] * 20
        monkeypatch.setattr(Handler, "_echo", FewEchoes(Handler._echo))
        code, _, said = gate(run, tiny_project, capsys, "--served", url, "served.retries=0")
    assert code == 1 and "does not answer with log-probabilities" in said and "Traceback" not in said
