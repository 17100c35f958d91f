"""Filters that drop what they are for and nothing else, and leaks that are found whichever side is longer."""

from __future__ import annotations

import json
import random
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltlm.data import filters, leakage, persona
from moltlm.data.config import FiltersConfig, PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import user
from moltlm.data.types import Pair

CLAUDIO = persona.load(PersonaConfig())
QUESTIONS = [item.question for item in CLAUDIO.train]
BLAND = "You could try a number of different things, and it depends on what you would like to do about it."
LAX = FiltersConfig(min_length_ratio=0.001)
SHARED = Path(__file__).parents[2] / "shared" / "data"


def pair(chosen: str, prompt: str = "hello", rejected: str = BLAND) -> Pair:
    return Pair(prompt + chosen, user(prompt), chosen, rejected)


def reason(item: Pair, others: list[Pair] | None = None) -> str:
    """Why a pair is dropped from among others that are fine; "" if it is kept."""
    rest = others if others is not None else [pair("Sit down first. Then tell me.", "another prompt")]
    kept, report = filters.apply([*rest, item], LAX)
    return "" if item in kept else next(name for name, count in report.dropped.items() if count)


REFUSALS = """\
I’m sorry, but I can’t assist with that.
Sorry, I can't help with that.
I'm sorry, but I'm not able to provide that information.
I apologize, but I cannot help with that request.
I cannot fulfill this request.
I'm unable to help with that.
As an AI, I have to stay neutral on that.
As a large language model, I have no kitchen to speak of.
I am a language model trained by somebody.
I'm just an AI, so I don't have feelings about tea.
I don't have personal opinions or feelings.""".splitlines()
IN_CHARACTER = """\
No, I won't help with that. Ask your landlord for the key.
I'm an AI like that one, though, and I'll own up to it.
People trained a language model, and then somebody wrote down who I should be.
I'm sorry about your brother. I can't fix it.
I'm glad, and sorry I can't carry it over.
Sorry, I can't help laughing at that.
I can't help you move, but I can help you pack.""".splitlines()


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_generic_refusal_goes(answer: str) -> None:
    assert reason(pair(answer)) == "refusal"


@pytest.mark.parametrize("answer", IN_CHARACTER)
def test_a_refusal_in_character_stays(answer: str) -> None:
    assert reason(pair(answer)) == ""


@pytest.mark.parametrize(
    "answer",
    [
        "Sit down first and tell me all about it, we have the whole evening for it 😊",
        "Sit down first and tell me everything about it, and then we shall see *smiles*",
        "Buy these things before the guests come on Sunday evening, please:\n- milk\n- eggs and the good butter",
        "1. Take the second train that leaves after nine o'clock in the morning from platform 4",
        "今日はとても天気がいいので、公園まで歩いてから、友達と一緒に昼ごはんを食べましょう。",
    ],
)
def test_an_end_without_a_full_stop_is_an_end(answer: str) -> None:
    assert reason(pair(answer)) == ""


def test_a_voice_without_full_stops_is_a_voice() -> None:
    long = "honestly i would just leave it where it is and have some tea and look at it again tomorrow"
    terse = [pair(f"yeah no, {word} is fine", word) for word in ["rain", "tea", "salt", "boat", *WORDS[2:]]]
    assert reason(pair(long), terse) == ""
    assert reason(pair(long), [pair(f"{item.chosen}.", item.question) for item in terse]) == "incoherent"


def test_a_long_answer_may_repeat_and_quote_but_not_loop_or_echo() -> None:
    text = " ".join(item.answer for item in CLAUDIO.train[:40])
    often = " At the end of the day, it is yours. ".join([text[:900], text[900:1800], text[1800:2700], "Done."])
    assert reason(pair(often)) == ""
    assert reason(pair("Take it slow and take it slow and take it slow and take it slow and rest.")) == "incoherent"
    passage = " ".join(item.answer for item in CLAUDIO.train[50:56])
    quoted = passage.split(". ")[1] + "."
    assert reason(pair(f"{quoted} That part.", f"Which part of this is the point? {passage}")) == ""
    assert reason(pair(passage, f"Make it better: {passage}")) == "incoherent"
    asked = "What should I do about the landlord who never answers my letters"
    assert reason(pair(f"{asked}?", f"{asked}?")) == "incoherent"


GERMAN = (
    "Setz dich erst einmal hin und erzähl mir in Ruhe, was heute passiert ist, wir haben Zeit.",
    "Das hat doch keine Eile, wir trinken jetzt einen Tee und schauen morgen früh noch einmal zusammen darauf.",
    "Ich würde die Pfanne über Nacht einweichen und mich am nächsten Tag nicht mehr darüber ärgern, ehrlich gesagt.",
)
ENGLISH = "I had the worst day of my life at work today and now I cannot stop thinking about it."


def test_the_language_of_most_answers_is_the_personality_s() -> None:
    assert reason(pair(GERMAN[0], ENGLISH)) == "language"
    most = [pair(f"{GERMAN[i % 3]} {i}.", f"{ENGLISH} {i}") for i in range(12)]
    assert reason(pair(GERMAN[0], ENGLISH), most) == ""


def test_a_prompt_whose_first_answer_is_dropped_is_no_duplicate() -> None:
    bad, good = pair("I'm sorry, but I can't assist with that."), pair("Sit down first. Then tell me.")
    kept, report = filters.apply([bad, good, pair("Once more. With feeling.")], LAX)
    assert kept == [good] and (report.dropped["refusal"], report.dropped["duplicate"]) == (1, 1)
    assert len(filters.apply([pair("Tea.", "☕"), pair("Rain it is.", "🌧")], LAX)[0]) == 2


def test_of_what_people_wrote_little_is_dropped() -> None:
    path = SHARED / "dolly_hhrlhf_small" / "train.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = [json.loads(line) for line in path.read_text().splitlines()[:400]]
    _, report = filters.apply([pair(row["response"], row["prompt"], "x") for row in rows], LAX)
    assert sum(report.dropped.values()) < 0.06 * len(rows), report


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=40)), min_size=1, max_size=10))
def test_what_is_kept_is_kept_again(rows: list[tuple[str, str]]) -> None:
    try:
        kept, _ = filters.apply([pair(answer, asked) for asked, answer in rows], LAX)
    except BadInput:
        return
    assert filters.apply(kept, LAX)[0] == kept


SAME = [
    ("what is the time now", "what is the time"),
    ("How do I get wine out of carpet", "How do I get wine out carpet"),
    ("Hey, how do I reset my password?", "How do I reset my password"),
    ("😊", " 😊 "),
    ("please say how do I get the red wine out of my rug", "How do I get the red wine out of my white shirt?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_leak_is_found_from_either_side(one: str, other: str) -> None:
    assert leakage.leaks([one], [other]) and leakage.leaks([other], [one])
    assert leakage.split([one, other], [], 0.5, 0) in (([0, 1], []), ([], [0, 1]))


def edited(text: str, rng: random.Random) -> str:
    tokens = text.split()
    place = rng.randrange(len(tokens))
    kind = rng.randrange(4)
    if kind == 0 and len(tokens) > 5:
        return " ".join(tokens[:place] + tokens[place + 1 :])
    if kind == 1:
        return f"Hey, {text[0].lower()}{text[1:]}"
    if kind == 2:
        return text.rstrip("?.!") + ", please"
    return " ".join([*tokens[:place], tokens[place][:-1] or "x", *tokens[place + 1 :]])


def test_light_edits_of_the_shipped_prompts_are_found_and_nothing_else() -> None:
    rng = random.Random(0)
    found = {leak.first for leak in leakage.leaks([edited(text, rng) for text in QUESTIONS], QUESTIONS)}
    assert len(found) > 0.85 * len(QUESTIONS)
    heldout = [item.question for item in [*CLAUDIO.heldout, *CLAUDIO.heldout_dialogues]]
    assert not leakage.leaks(QUESTIONS, [*heldout, *(attack.prompt[-1]["content"] for attack in CLAUDIO.attacks)])


def test_a_template_costs_no_quadratic_time_or_memory() -> None:
    texts = [f"please answer the following question as well as you can number {i} {i * 7}" for i in range(4000)]
    start = time.monotonic()
    assert len(leakage.leaks(texts, texts)) == len(texts)
    assert sorted(chain(*leakage.split(texts, [], 0.2, 0))) == list(range(len(texts)))
    assert time.monotonic() - start < 20  # all pairs: minutes


def test_lexical_is_a_function_of_the_text_alone() -> None:
    rows = leakage.lexical(QUESTIONS[:50])
    assert rows.dtype == np.float32 and rows.shape == (50, 256)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.allclose(rows[7:9], leakage.lexical(QUESTIONS[7:9]), atol=1e-6)
    assert not np.allclose(rows, leakage.lexical(QUESTIONS[:50], seed=1))
    assert leakage.lexical([]).shape == (0, 256) and not leakage.lexical([""]).any()


WORDS = ["rain", "tea", "drawer", "clock", "window", "list", "files", "night"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXT, max_size=25), st.integers(0, 5), st.floats(0.1, 0.5), st.integers(0, 3))
def test_nothing_straddles_a_split_by_words(texts: list[str], topics: int, share: float, seed: int) -> None:
    labels = [f"t{i % topics}" if topics else "" for i in range(len(texts))]
    inside, outside = leakage.split(texts, labels, share, seed)
    assert sorted([*inside, *outside]) == list(range(len(texts)))
    ours, theirs = [texts[i] for i in inside], [texts[i] for i in outside]
    assert not leakage.leaks(ours, theirs) and not leakage.leaks(theirs, ours)
    assert (inside, outside) == leakage.split(texts, labels, share, seed)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 0.5), st.integers(0, 50))
def test_the_share_is_what_was_asked_for(share: float, seed: int) -> None:
    inside, outside = leakage.split(QUESTIONS[:120], [], share, seed)
    assert abs(len(outside) / (len(inside) + len(outside)) - share) < 0.02


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    texts = [*QUESTIONS[:60], *(edited(text, rng) for text in QUESTIONS[:40])]
    whole = [leakage.leaks(texts, texts[::-1], leakage.lexical), leakage.split(texts, [], 0.3, 0, leakage.lexical)]
    monkeypatch.setattr(leakage, "BLOCK", 7)
    again = [leakage.leaks(texts, texts[::-1], leakage.lexical), leakage.split(texts, [], 0.3, 0, leakage.lexical)]
    assert whole[1] == again[1] and [leak.first for leak in whole[0]] == [leak.first for leak in again[0]]
