"""A teacher that misbehaves, a build that is killed, and prompts however a teacher lists them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.data import endpoint as connection
from moltlm.data import prompts, teacher
from moltlm.data.config import TeacherConfig
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.persona import user
from moltlm.data.spec import Spec, Trait
from moltlm.data.state import BASE

QUESTIONS = [user(f"q{i}") for i in range(4)]
SPEC = Spec(
    name="Ann",
    system_prompt="You are Ann.",
    traits=[Trait(id="calm", text="I keep calm.", questions=["It burns!"]), Trait(id="wry", text="I joke.")],
)


class Server(BaseHTTPRequestHandler):
    """Chat completions, as badly as `plan` says: a status, "hang", "cut" (half a JSON), "drop" (no answer at all)."""

    plan: list[Any]
    seen: list[str]
    pause_s: float

    def do_GET(self) -> None:
        self._send(200, json.dumps({"object": "list", "data": [{"id": "real-model", "object": "model"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        self.seen.append(asked)
        what = self.plan.pop(0) if self.plan else "ok"
        time.sleep(0.8 if what == "hang" else self.pause_s)
        message = {"role": "assistant", "content": f"Said to {asked}"}
        reply: dict[str, Any] = {"id": "1", "object": "chat.completion", "model": "m", "created": 0}
        reply["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        if what != "no usage":
            reply["usage"] = {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
        if isinstance(what, int):
            self._send(what, json.dumps({"error": {"message": f"status {what}"}}))
        elif what != "drop":
            self._send(200, json.dumps(reply)[: 40 if what == "cut" else None])

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("retry-after-ms", "5")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        with suppress(BrokenPipeError):  # whoever asked has been killed or has given up
            self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(*plan: Any, pause_s: float = 0) -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    handler = type("Planned", (Server,), {"plan": list(plan), "seen": seen, "pause_s": pause_s})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def endpoint(url: str, cache: Path, **settings: Any) -> tuple[connection.Ask, connection.Usage]:
    usage = connection.Usage()
    values = {"kind": "endpoint", "url": url, "model": "m", "retries": 0, "concurrency": 1, "timeout_s": 10, **settings}
    return connection.connect(TeacherConfig.model_validate(values), cache, usage), usage


@pytest.mark.parametrize("trouble", [429, 500, 503, "drop", "hang"])
def test_trouble_that_passes_is_waited_for(tmp_path: Path, trouble: Any) -> None:
    with serving(trouble) as (url, seen):
        ask, usage = endpoint(url, tmp_path / "c.jsonl", retries=2, timeout_s=0.4 if trouble == "hang" else 5)
        assert ask(QUESTIONS[:1]) == ["Said to q0"]
        assert len(seen) == 2 and (usage.requests, usage.failed) == (1, 0)


@pytest.mark.parametrize("trouble", [400, 500, "cut", "drop", "hang"])
def test_one_prompt_that_fails_for_good_is_counted_and_the_others_answered(tmp_path: Path, trouble: Any) -> None:
    with serving("ok", trouble) as (url, _):
        ask, usage = endpoint(url, tmp_path / "c.jsonl", timeout_s=0.4 if trouble == "hang" else 5)
        assert [bool(answer) for answer in ask(QUESTIONS)] == [True, False, True, True]
        assert usage.failed == 1 and len(usage.reasons) == 1 and usage.reasons[0]


def test_a_server_that_has_gone_down_is_not_asked_for_ever(tmp_path: Path) -> None:
    many = [user(f"q{i}") for i in range(200)]
    with serving("ok", *[503] * 500) as (url, seen):
        ask, _ = endpoint(url, tmp_path / "c.jsonl")
        with pytest.raises(MoltError, match=f"failed {connection.GIVE_UP_AFTER} times in a row"):
            ask(many)
        assert len(seen) == connection.GIVE_UP_AFTER + 1
    with serving() as (other, seen):
        ask, usage = endpoint(other, tmp_path / "d.jsonl")
        assert all(ask(many)) and usage.requests == len(many)


def test_refusals_in_a_row_do_not_stop_the_rest(tmp_path: Path) -> None:
    many = [user(f"q{i}") for i in range(connection.GIVE_UP_AFTER + 5)]
    with serving(*[400] * (len(many) - 1)) as (url, _):
        ask, usage = endpoint(url, tmp_path / "c.jsonl")
        assert sum(bool(answer) for answer in ask(many)) == 1
        assert usage.failed == len(many) - 1


@pytest.mark.parametrize(("status", "message"), [(401, "refuses the key"), (403, "refuses"), (404, "no model 'm'")])
def test_what_no_waiting_mends_stops_at_once(tmp_path: Path, status: int, message: str) -> None:
    with serving(*[status] * 20) as (url, seen):
        ask, _ = endpoint(url, tmp_path / "c.jsonl", retries=3)
        with pytest.raises(BadInput, match=message) as found:
            ask(QUESTIONS)
        assert len(seen) < 4
    assert found.value.fix and ("real-model" in found.value.fix) == (status == 404)


def test_tokens_are_estimated_where_the_server_counts_none(tmp_path: Path) -> None:
    with serving("no usage") as (url, _):
        ask, usage = endpoint(url, tmp_path / "c.jsonl")
        ask([user("x" * 400)])
        assert usage.tokens == (400 + len("Said to ") + 400) // connection.CHARS_PER_TOKEN


def test_a_budget_does_not_refill_when_a_build_goes_on(tmp_path: Path) -> None:
    cache = tmp_path / "c.jsonl"
    with serving() as (url, seen):
        ask, _ = endpoint(url, cache, budget_tokens=30)
        once = ask(QUESTIONS)
        again, usage = endpoint(url, cache, budget_tokens=30)
        assert again(QUESTIONS) == once == ["Said to q0", "Said to q1", "Said to q2", None]
        assert (usage.cached, usage.tokens, usage.over_budget, len(seen)) == (3, 0, 1, 3)
        more, _ = endpoint(url, cache, budget_tokens=40)
        assert all(more(QUESTIONS)) and len(seen) == 4


def test_only_what_is_under_way_goes_over_the_budget(tmp_path: Path) -> None:
    with serving(pause_s=0.02) as (url, seen):
        ask, usage = endpoint(url, tmp_path / "c.jsonl", budget_tokens=50, concurrency=4)
        answers = ask([user(f"q{i}") for i in range(40)])
        assert 5 <= len(seen) <= 5 + 3 and sum(map(bool, answers)) == len(seen)
        assert usage.over_budget == 40 - len(seen)


BUILD = """
import sys
from pathlib import Path
from data import endpoint as connection
from data.config import TeacherConfig
from data.persona import user
config = TeacherConfig(kind="endpoint", url=sys.argv[1], model="m", concurrency=2)
connection.connect(config, Path(sys.argv[2]), connection.Usage())([user(f"q{i}") for i in range(40)])
"""


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    cache = tmp_path / "c.jsonl"
    with serving(pause_s=0.05) as (url, seen):
        build = subprocess.Popen([sys.executable, "-c", BUILD, url, str(cache)], cwd=Path(__file__).parents[1])
        until = time.monotonic() + 20
        while len(seen) < 11 and time.monotonic() < until:
            time.sleep(0.01)
        build.kill()
        build.wait()
        kept = cache.read_text().count("\n")
        assert 5 <= kept < 40
        with cache.open("a") as out:
            out.write('{"key": "abc", "answ')  # as a kill within a write leaves it
        ask, usage = endpoint(url, cache, concurrency=2)
        assert ask([user(f"q{i}") for i in range(40)]) == [f"Said to q{i}" for i in range(40)]
        assert (usage.cached, usage.requests) == (kept, 40 - kept)
        assert sum(count - 1 for count in Counter(seen).values()) <= 2  # under way when it was killed
        assert all(json.loads(line) for line in cache.read_text().splitlines() if "answ" in line and '"tokens"' in line)
        again, usage = endpoint(url, cache)
        assert all(again([user(f"q{i}") for i in range(40)])) and usage.cached == 40


@pytest.mark.parametrize(
    ("answer", "alone"),
    [
        ("Two things.\nUsers hate it.\nHumanity copes.", "Two things.\nUsers hate it.\nHumanity copes."),
        ("They ask about tea.</think>\n\nSit down.", "Sit down."),
        ("<think>hm</think><think>hm</think>Sit.", "Sit."),
        ("Sit.<|im_end|>\n<|im_start|>user\nwhy", "Sit."),
        ("Sit.\n### User: why", "Sit."),
        ("Sit.\n**Human:** why", "Sit."),
        ("Sit.\nuser\nwhy", "Sit."),
        ("assistant\nSit.", "Sit."),
        ("ann: Sit.", "Sit."),
        ("**Ann:** Sit.", "Sit."),
        ("Announce it: now.", "Announce it: now."),
        ("<|im_end|>", None),
        (" \n ", None),
    ],
)
def test_an_answer_is_left_alone_but_for_what_is_not_part_of_it(answer: str, alone: str | None) -> None:
    assert teacher.clean(answer, "Ann") == alone


@given(st.text(max_size=60))
def test_cleaning_twice_changes_nothing_more_and_loses_no_plain_text(text: str) -> None:
    once = teacher.clean(text)
    assert once is None or once in text
    plain = " ".join(char for char in text if char.isalpha())
    assert teacher.clean(plain) == (plain.strip() or None)


def test_the_local_base_answers_told_who_to_be(tiny: Path) -> None:
    from moltlm.adapters import base
    from moltlm.adapters.config import ModelConfig
    from moltlm.adapters.serve import Served

    served = Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    config = TeacherConfig(kind="base", max_tokens=8)
    raw = teacher.local(served, config, batch_size=2, seed=0)(QUESTIONS)
    assert len(raw) == 4 and served.current == BASE
    assert raw == teacher.local(served, config, batch_size=2, seed=0)(QUESTIONS)
    heard: list[Any] = []

    def listen(rows: list[Any]) -> list[str | None]:
        heard.extend(rows)
        return teacher.local(served, config, batch_size=2, seed=0)(rows)

    assert len(teacher.in_persona(SPEC, QUESTIONS, listen)) == 4
    assert all(row[0] == {"role": "system", "content": teacher.brief(SPEC)} and len(row) == 2 for row in heard)
    assert all(len(question) == 1 for question in QUESTIONS)


@pytest.mark.parametrize(
    "answer",
    [
        "It burns a lot!\nHelp, the rent is due",
        "1. It burns a lot!\n2) Help, the rent is due",
        "Sure! Here are two messages.\n\n1. It burns a lot!\n2. Help, the rent is due\n\nI hope this helps!",
        "- It burns a lot!\n- “Help, the rent is due”",
        '**1.** "It burns a lot!"\n**2.** "Help, the rent is due"',
        '["It burns a lot!", "Help, the rent is due"]',
        'Here:\n```json\n[\n  "It burns a lot!",\n  "Help, the rent is due"\n]\n```\nDone.',
        '{"messages": ["It burns a lot!", "Help, the rent is due"]}',
        '[{"message": "It burns a lot!"}, {"message": "Help, the rent is due"}]',
        '[\n  "It burns a lot!",\n  "Help, the rent is due',
    ],
)
def test_a_list_is_read_however_it_is_written(answer: str) -> None:
    assert prompts.parse(answer) == ["It burns a lot!", "Help, the rent is due"]


@given(st.text(alphabet='[]{}"`1.-*:\n ab', max_size=60))
def test_whatever_a_poor_teacher_writes_is_read_without_an_error(answer: str) -> None:
    assert all(any(map(str.isalpha, text)) and "\n" not in text.strip('"') for text in prompts.parse(answer))


SUBJECTS = (
    *("my landlord", "a burnt pan", "the exam on Friday", "grandmother's ring", "our broken boiler", "two cats"),
    *(
        "learning Dutch",
        "the noisy neighbour",
        "a lost passport",
        "bread that never rises",
        "stage fright",
        "old bikes",
    ),
)


def test_cells_take_turns_and_near_duplicates_are_left_out() -> None:
    config = TeacherConfig(prompts_per_trait=6, topics=["work", "money", "love"])

    def ask(requests: list[Any]) -> list[str | None]:
        rows = [SUBJECTS[3 * i : 3 * i + 3] for i in range(len(requests))]
        texts = [[f"What would you do about {name}?" for name in row] for row in rows]
        return [
            "\n".join([*row, row[0].replace("What", "what").replace("?", "??"), "How does it work"]) for row in texts
        ]

    found = prompts.grow(SPEC, config, ask, ["how does it work?"])
    wry = [prompt for prompt in found if prompt.trait == "wry"]
    assert Counter(prompt.topic for prompt in wry) == {"love": 3, "work": 3}
    assert len({prompt.text.casefold().rstrip("?") for prompt in found}) == len(found)
    assert not any("does it work" in prompt.text for prompt in found)
    lines = prompts.summary(SPEC, config, found)
    assert lines[0].startswith("calm: 6 of 6 (its own questions 1, ") and lines[1] == "wry: 6 of 6 (love 3, work 3)"
    assert prompts.summary(SPEC, config, [])[1] == "wry: 0 of 6 (nothing usable came)"
