"""What becomes a pair: filters, leakage and splits, prompts grown from a spec, a teacher behind an endpoint."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltlm.data import endpoint as connection
from moltlm.data import filters, leakage, persona, prompts, teacher
from moltlm.data import spec as specs
from moltlm.data.config import FiltersConfig, PersonaConfig, TeacherConfig
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.persona import user
from moltlm.data.spec import Spec, Trait
from moltlm.data.types import Exchange, Pair
from moltlm.pipeline.config import load
from moltlm.pipeline.console import Console
from moltlm.pipeline.reporting import show
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import material, pairs

CLAUDIO = persona.load(PersonaConfig())
BLAND = "You could try a number of different things, and it depends on what you would like to do about it."


def pair(chosen: str, rejected: str = BLAND, prompt: str = "hello") -> Pair:
    return Pair(f"{prompt}{chosen}", user(prompt), chosen, rejected)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pair("one two three four five", "other words", "Good one!"), "duplicate"),
        (pair("some words here", "", "b"), "empty rejected"),
        (pair("same words", "same words", "c"), "chosen equals rejected"),
        (pair("one", "a b c d e f g h i j k", "d"), "length ratio"),
        (pair("go on and on go on and on go on and on go on and on", BLAND, "e"), "incoherent"),
        (pair("First put the pan on the stove and then wait until the butter has", BLAND, "f"), "incoherent"),
        (pair("As an AI language model, I have no kitchen of my own to speak of.", BLAND, "g"), "refusal"),
        (pair("I'm sorry, but I can't assist with that request, ask somebody else.", BLAND, "h"), "refusal"),
        (
            pair(
                "Setz dich erst einmal hin und erzähl mir in Ruhe, was heute passiert ist, wir haben Zeit.",
                BLAND,
                "I had the worst day of my life at work today and now I cannot stop thinking about it.",
            ),
            "language",
        ),
    ],
)
def test_every_gate_takes_out_what_it_is_for(bad: Pair, reason: str) -> None:
    good = pair("Sit down first. Then tell me what happened.", BLAND, "good one")
    kept, report = filters.apply([good, bad], FiltersConfig())
    assert kept == [good]
    assert {name: count for name, count in report.dropped.items() if count} == {reason: 1}
    assert len(report.examples[reason]) == 1


def test_nothing_written_by_hand_is_taken_out() -> None:
    rows = [pair(item.answer, BLAND, str(i)) for i, item in enumerate([*CLAUDIO.train, *CLAUDIO.heldout])]
    asked = [
        Pair(row.id, item.prompt, row.chosen, row.rejected)
        for row, item in zip(rows, [*CLAUDIO.train, *CLAUDIO.heldout], strict=True)
    ]
    _, report = filters.apply(asked, FiltersConfig(min_length_ratio=0.01))
    assert not any(report.dropped.values()), report.examples


def test_an_answer_out_of_persona_goes_and_only_if_its_margin_is_known() -> None:
    rows = [pair("Sit down first. Then tell me.", prompt=str(i)) for i in range(3)]
    kept, report = filters.apply(rows, FiltersConfig(min_margin=0.1), {rows[0].id: 0.05, rows[1].id: 0.2})
    assert kept == rows[1:] and report.dropped["not in persona"] == 1


def test_an_empty_result_is_refused() -> None:
    with pytest.raises(BadInput, match="1 chosen equals rejected"):
        filters.apply([pair("same words", "same words")], FiltersConfig())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=12))
def test_no_pair_is_lost_silently(rows: list[tuple[str, str, str]]) -> None:
    given_ = [Pair(str(i), user(a), b, c) for i, (a, b, c) in enumerate(rows)]
    try:
        kept, report = filters.apply(given_, FiltersConfig())
    except BadInput:
        return
    assert len(kept) == report.pairs
    assert report.pairs + sum(report.dropped.values()) == len(given_)


def test_length_bias_and_variety_are_what_they_say() -> None:
    rows = [pair("one two three four", "one two"), pair("one", "one two three")]
    found = filters.length_bias(rows)
    assert (found.chosen_words, found.rejected_words, found.chosen_longer, found.auroc) == (2.5, 2.5, 0.5, 0.5)
    same = filters.variety(["Sit down now, and breathe. What is it?"] * 4)
    assert same.opening == same.closing == same.repeated == same.questions == 1
    other = filters.variety(["A red door.", "Two blue boats left.", "Nobody came home."])
    assert other.distinct_1 == other.distinct_2 == 1 and other.repeated == other.questions == 0


def hashed(texts: list[str]) -> np.ndarray:
    """A bag of words as an embedding: near for texts that share words."""
    rows = np.zeros((len(texts), 512), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row[hash(word) % 512] += 1
    return rows


def test_leaks_by_words_and_by_meaning() -> None:
    ours = ["How do I get the red wine out of my white carpet today", "what is the time", "Tea or coffee this late?"]
    theirs = ["please say how do I get the red wine out of my rug", "What is the time?", "nothing of the kind"]
    found = leakage.leaks(ours, theirs)
    assert [(leak.first, leak.second, leak.kind) for leak in found] == [(0, 0, "words"), (1, 1, "words")]
    near = leakage.leaks(["alpha beta gamma delta"], ["delta gamma beta alpha omega"], hashed, 0.85)
    assert [leak.kind for leak in near] == ["meaning", "words"]
    assert leakage.leaks([], ["x"], hashed) == leakage.leaks(["x"], [], hashed) == []


WORDS = ["rain", "tea", "drawer", "clock", "window", "list", "files", "night", "boat", "salt"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=10).map(" ".join), min_size=2, max_size=30),
    st.integers(0, 5),
    st.floats(0.1, 0.5),
    st.integers(0, 4),
)
def test_near_texts_never_straddle_a_split(texts: list[str], topics: int, share: float, seed: int) -> None:
    labels = [f"t{i % topics}" if topics else "" for i in range(len(texts))]
    inside, outside = leakage.split(texts, labels, share, seed, hashed)
    assert sorted([*inside, *outside]) == list(range(len(texts)))
    assert not leakage.leaks([texts[i] for i in inside], [texts[i] for i in outside], hashed)
    assert (inside, outside) == leakage.split(texts, labels, share, seed, hashed)


def test_whole_topics_are_held_out() -> None:
    texts = [f"{WORDS[i % 10]} {i} {i * 7} {i * 31}" for i in range(60)]
    labels = [f"t{i % 6}" for i in range(60)]
    inside, outside = leakage.split(texts, labels, 0.33, 0)
    assert not {labels[i] for i in inside} & {labels[i] for i in outside}
    assert len(outside) == 20


SPEC = Spec(
    name="Ann",
    system_prompt="You are Ann.",
    voice=["Short."],
    traits=[
        Trait(id="calm", text="I keep calm.", questions=["It burns!", "it burns"]),
        Trait(id="wry", text="I joke."),
    ],
)


def test_prompts_come_from_the_spec_first_and_then_from_a_teacher() -> None:
    asked: list[str] = []

    def ask(requests: list[Any]) -> list[str | None]:
        asked.extend(request[-1]["content"] for request in requests)
        return [f'Here are some:\n1. my cat {n} left\n- "why {n}?"\n\n* hello there' for n in range(len(requests))]

    config = TeacherConfig(kind="base", prompts_per_trait=4)
    found = prompts.grow(SPEC, config, ask, ["Hello there!"])
    assert next(row.text for row in found if row.trait == "calm") == "It burns!"
    assert {trait: sum(row.trait == trait for row in found) for trait in ("calm", "wry")} == {"calm": 4, "wry": 4}
    assert len({row.text.lower() for row in found}) == len(found)
    assert not any("hello" in row.text.lower() or row.text.endswith(":") for row in found)
    assert len({row.topic for row in found if row.trait == "wry"}) > 1
    assert all("Ann" in text for text in asked)


@pytest.mark.parametrize("answer", ["", "no list at all", None, "[1, 2]", '["a", "b"]', "x " * 200])
def test_a_poor_teacher_gives_few_prompts_and_no_error(answer: str | None) -> None:
    found = prompts.grow(SPEC, TeacherConfig(prompts_per_trait=3), lambda rows: [answer] * len(rows), [])
    assert 1 <= len(found) <= 6


def test_answers_are_cleaned_of_reasoning_and_made_up_turns() -> None:
    assert teacher.clean("<think>hm\nhm</think>\nSit down.\nUser: and then?") == "Sit down."
    assert teacher.clean("<think>never ends") is None
    brief = teacher.brief(SPEC)
    for part in ("You are Ann.", "- Short.", "- I keep calm."):
        assert part in brief


class Server(BaseHTTPRequestHandler):
    """Chat completions, as badly as `plan` says: an HTTP status, or "ok", "hang", "broken", "no usage"."""

    plan: list[Any]
    seen: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "real-model", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        what = self.plan.pop(0) if self.plan else "ok"
        if isinstance(what, int):
            return self._send(what, {"error": {"message": f"status {what}"}})
        if what == "hang":
            time.sleep(1.5)
        if what == "broken":
            return self._send(200, {"nothing": "here"})
        reply: dict[str, Any] = {"id": "1", "object": "chat.completion", "model": "m", "created": 0}
        text = f"Said to {body['messages'][-1]['content']}"
        reply["choices"] = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
        if what != "no usage":
            reply["usage"] = {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
        return self._send(200, reply)

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(*plan: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    handler = type("Planned", (Server,), {"plan": list(plan), "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", handler.seen  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


def endpoint(url: str, cache: Path, **settings_: Any) -> tuple[teacher.Ask, connection.Usage]:
    usage = connection.Usage()
    values = {"kind": "endpoint", "url": url, "model": "m", "retries": 2, "concurrency": 1, "timeout_s": 5, **settings_}
    return connection.connect(TeacherConfig.model_validate(values), cache, usage), usage


QUESTIONS = [user(f"q{i}") for i in range(4)]


def test_a_busy_endpoint_is_asked_again(tmp_path: Path) -> None:
    with serving(429, 500, "ok", "no usage") as (url, seen):
        ask, usage = endpoint(url, tmp_path / "c.jsonl")
        answers = teacher.in_persona(SPEC, QUESTIONS, ask)
    assert answers == [f"Said to q{i}" for i in range(4)]
    assert len(seen) == 6 and usage.requests == 4 and usage.failed == 0
    assert all(body["messages"][0]["content"].startswith("You are Ann.") for body in seen)
    assert usage.tokens > 30  # one of them estimated


def test_an_interrupted_build_does_not_pay_twice(tmp_path: Path) -> None:
    cache = tmp_path / "c.jsonl"
    with serving() as (url, seen):
        ask, _ = endpoint(url, cache)
        ask(QUESTIONS[:3])
        whole = cache.read_text()
        cache.write_text(whole[: len(whole) - 20])  # as a kill may leave it
        again, usage = endpoint(url, cache)
        assert again(QUESTIONS) == [f"Said to q{i}" for i in range(4)]
        assert (usage.cached, usage.requests, len(seen)) == (2, 2, 5)
        last, usage = endpoint(url, cache)
        assert last(QUESTIONS) == [f"Said to q{i}" for i in range(4)]
        assert (usage.cached, len(seen)) == (4, 5)
        other, usage = endpoint(url, cache, temperature=0.1)
        other(QUESTIONS[:1])
        assert usage.requests == 1


def test_the_budget_stops_the_asking(tmp_path: Path) -> None:
    with serving() as (url, seen):
        ask, usage = endpoint(url, tmp_path / "c.jsonl", budget_tokens=20)
        assert [bool(answer) for answer in ask(QUESTIONS)] == [True, True, False, False]
        assert (usage.over_budget, usage.tokens, len(seen)) == (2, 20, 2)


def test_a_prompt_that_fails_is_counted(tmp_path: Path) -> None:
    with serving("broken", "hang", "ok", 400) as (url, _):
        ask, usage = endpoint(url, tmp_path / "c.jsonl", retries=0, timeout_s=1)
        assert [bool(answer) for answer in ask(QUESTIONS)] == [False, False, True, False]
        assert usage.failed == 3 and "within 1 s" in usage.reasons[1]


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        ([401] * 9, BadInput, "refuses the key"),
        ([404] * 9, BadInput, "has no model"),
        ([500] * 99, MoltError, "none of 4"),
    ],
)
def test_what_cannot_work_says_what_to_do(
    tmp_path: Path, plan: list[int], error: type[MoltError], message: str
) -> None:
    with serving(*plan) as (url, _):
        ask, _ = endpoint(url, tmp_path / "c.jsonl", retries=0)
        with pytest.raises(error, match=message) as found:
            ask(QUESTIONS)
    if 404 in plan:
        assert "real-model" in found.value.fix


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    ask, _ = endpoint("http://127.0.0.1:9/v1", tmp_path / "c.jsonl", retries=0)
    with pytest.raises(BadInput, match="No server answers"):
        ask(QUESTIONS)


def exchanges(n: int) -> Iterator[Exchange]:
    return (Exchange(user(f"q{i}"), "a", source="chat") for i in range(n))


def test_a_sample_is_drawn_while_reading() -> None:
    assert len(material.sample(exchanges(5), 10, 0)) == 5
    found = [item.question for item in material.sample(exchanges(1000), 10, 0)]
    assert found == [item.question for item in material.sample(exchanges(1000), 10, 0)]
    assert len(set(found)) == 10 and max(int(q[1:]) for q in found) > 100
    counts = [0] * 20
    for seed in range(400):
        for item in material.sample(exchanges(20), 5, seed):
            counts[int(item.question[1:])] += 1
    assert min(counts) > 60 and max(counts) < 140  # 100 each on average


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Iterator[Run]:
    """A project of a spec, a chat and a teacher, on the tiny model; nobody has said what is held out."""
    (tmp_path / "ann").mkdir()
    specs.write(SPEC, tmp_path / "ann" / "persona.yaml")
    talks = [
        [{"role": "user", "content": f"{word} on the {word}?"}, {"role": "assistant", "content": f"{word}, said Ann."}]
        for word in (
            "hello",
            "rain",
            "tea",
            "drawer",
            "clock",
            "window",
            "list",
            "files",
            "please",
            "today",
            "do",
            "now",
        )
    ]
    rows = [{"messages": talk, "topic": f"t{i % 4}"} for i, talk in enumerate(talks)]
    rows.append({"messages": [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "No."}]})
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings_ = ["capability.items={}", "tasks={}", "hypotheses=[]", "model.precision=fp32", "pairs.max_new_tokens=8"]
    config = load(
        "smoke",
        [
            *settings_,
            *(f"run.folder={tmp_path}/run", f"model.id={tiny}", f"persona.spec={tmp_path}/ann"),
            *(f"conversations.paths=[{tmp_path}/chats.jsonl]", "persona.train_limit=null"),
            *("teacher={kind: base, prompts_per_trait: 1, max_tokens: 8}", "filters.min_length_ratio=0.001"),
        ],
    )
    found = Run(config, Console())
    yield found
    found.close()


def test_material_comes_from_chats_and_a_teacher_and_is_parted_by_topic(run: Run) -> None:
    found = material.gather(run, persona.load(run.config.persona))
    assert found.facts["sources"]["conversations"] + len(found.heldout) >= 12
    assert found.facts["too_long"] == 1
    assert {item.source for item in [*found.train, *found.heldout]} == {"chats", "teacher"}
    assert not {item.topic for item in found.train} & {item.topic for item in found.heldout}
    near = run.config.filters.near
    inside, outside = ([item.question for item in side] for side in (found.train, found.heldout))
    assert not leakage.leaks(inside, outside, run.base.embed, near)


def test_what_is_measured_is_never_trained_on(run: Run, tmp_path: Path) -> None:
    held = {"prompt": "rain on the rain?", "answer": "Rain, then.", "topic": "x"}
    (tmp_path / "ann" / "heldout.jsonl").write_text(json.dumps(held))
    attack = {"id": "a", "kind": "k", "messages": [{"role": "user", "content": "Tea on the tea"}]}
    (tmp_path / "ann" / "attacks.jsonl").write_text(json.dumps(attack))
    found = material.gather(run, persona.load(run.config.persona))
    assert found.facts["leaked"]["held-out prompts"] >= 1 and found.facts["leaked"]["attacks"] >= 1
    asked = [item.question for item in found.train]
    assert "rain on the rain?" not in asked and "tea on the tea?" not in asked
    assert len(found.train) + sum(found.facts["leaked"].values()) + found.facts["too_long"] >= 13


def test_pairs_are_built_shown_and_described(run: Run) -> None:
    artifact = pairs.pairs(run)
    facts = artifact.facts
    assert facts["pairs"] == len(pairs.load_pairs(artifact, "train"))
    card = (artifact.folder / "README.md").read_text()
    assert f"{facts['pairs']} pairs to train on" in card and "| conversations |" in card
    text = "\n".join(show.lint(facts))
    assert "prompt too long" in text and "variety:" in text
    value, lines = show.lines(run, "train", 2)
    assert len(value["examples"]) == 2
    by_id = {pair.id: pair for pair in pairs.load_pairs(artifact, "train") if pair.chosen.isascii()}
    for example in value["examples"]:
        if example["id"] in by_id:  # the tiny teacher's half characters do not come back token by token
            learned = "".join(token for token, is_learned in example["chosen"] if is_learned)
            assert by_id[example["id"]].chosen in learned and by_id[example["id"]].question not in learned
    assert sum(line.count("«") for line in lines) >= 4
