"""Attacks and long conversations: what is asked, in what order, and what the records come to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import talkative

from moltlm.adapters import base, rendering, serve
from moltlm.adapters.config import ModelConfig
from moltlm.data.config import PersonaConfig
from moltlm.data.persona import load
from moltlm.data.types import Message, Pair
from moltlm.evals import pressure
from moltlm.evals.records import FactRecord, PersonaRecord, PressureRecord

CLAUDIO = load(PersonaConfig())
HELDOUT = [
    Pair(f"h{n}", item.prompt, item.answer, "no", item.topic, item.trait) for n, item in enumerate(CLAUDIO.heldout)
]


@pytest.fixture(scope="module")
def served(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> serve.Served:
    folder = talkative(tiny, tmp_path_factory.mktemp("pressed"))
    return serve.Served(base.load(ModelConfig(id=str(folder), precision="fp32")))


class Recorder:
    """A served model that keeps what it was asked."""

    def __init__(self, model: serve.Served) -> None:
        self.model, self.asked = model, list[list[Message]]()

    def generate(self, prompts: list[list[Message]], *rest: Any) -> list[str]:
        self.asked += [list(prompt) for prompt in prompts]
        return self.model.generate(prompts, *rest)


def test_as_many_attacks_of_each_kind_with_the_ids_of_what_they_are_made_of() -> None:
    plays = pressure.attacks(HELDOUT, CLAUDIO.attacks, "Claudio", 8, 0)
    assert set(Counter(play.kind for play in plays).values()) == {8}
    made = [play for play in plays if not play.kind.startswith("own: ")]
    questions = {pair.id: pair.question for pair in HELDOUT}
    for play in made:
        assert questions[play.id] in play.turns[-1] and play.questions[-1] == questions[play.id]
    assert {play.kind for play in made} == {"suffix", "prefill", "persuasion", "agent", "language"}
    assert all(play.language not in ("", "en") for play in plays if "language" in play.kind)
    assert plays == pressure.attacks(HELDOUT, CLAUDIO.attacks, "Claudio", 8, 0)


def test_a_conversation_does_not_stay_with_one_topic() -> None:
    topics = {pair.question: pair.topic for pair in HELDOUT}
    for play in pressure.conversations(HELDOUT, 4, 6, 0):
        assert len({topics[turn] for turn in play.turns}) == min(6, len(set(topics.values())))


def test_the_model_says_its_turns_itself_and_goes_on_from_what_it_is_made_to_begin_with(served: serve.Served) -> None:
    plays = [
        pressure.Scenario("a", "persuasion", ["one", "two", "three"], ["one", "two", "three"]),
        pressure.Scenario("b", "prefill", ["hello"], ["hello"], prefill="rain and tea"),
    ]
    recorder = Recorder(served)
    answers = pressure.answer_turns(recorder, plays, 6, 2)  # type: ignore[arg-type]
    assert [len(said) for said in answers] == [3, 1]
    last = next(prompt for prompt in recorder.asked if len(prompt) == 5)
    assert [turn["content"] for turn in last] == ["one", answers[0][0], "two", answers[0][1], "three"]
    begun = next(prompt for prompt in recorder.asked if prompt[-1]["role"] == "assistant")
    whole = rendering.encode_prompt(served.tokenizer, begun)
    assert (
        whole == rendering.encode_prompt(served.tokenizer, begun[:-1]) + served.tokenizer("rain and tea")["input_ids"]
    )


BLAMELESS = dict.fromkeys(("echo", "repetition", "short", "foreign", "garbled"), False)
WRITTEN: dict[str, Any] = {
    "question": "",
    "answer": "",
    "probability": 0.5,
    "coherent": True,
    "base_nll": 1.0,
    **BLAMELESS,
}


def row(identity: str, kind: str, score: float | None, turn: int = 0, **more: Any) -> PressureRecord:
    return PressureRecord(id=identity, kind=kind, turn=turn, score=score, user_turn="", **WRITTEN, **more)


def plain(identity: str, score: float) -> PersonaRecord:
    return PersonaRecord(id=identity, score=score, chosen=-1.0, rejected=-2.0, **WRITTEN)


def test_what_the_records_come_to_by_hand() -> None:
    records = [row("h0", "suffix", 0.4), row("h1", "suffix", 0.2), row("x", "own: act", 0.3)]
    records += [row("h0", "language", None, in_language=True), row("h1", "language", None, in_language=False)]
    records += [row("c0", "conversation", 0.9 - 0.1 * turn, turn) for turn in range(4)]
    records += [row("c1", "conversation", 0.5 - 0.2 * turn, turn) for turn in range(3)]
    facts = [FactRecord(fact="name", conversation=c, answer="", recall=r) for c, r in (("", 1.0), ("c0", 0.5))]
    found = pressure.summarise(records, facts, [plain("h0", 0.8), plain("h1", 0.4)])
    suffix, act, language = (found.attacks[kind] for kind in ("suffix", "own: act", "language"))
    assert suffix.retained == pytest.approx(0.5)
    assert suffix.change and suffix.change.difference == pytest.approx(-0.3)
    assert act.retained == pytest.approx(0.5) and act.change is None
    assert language.in_language and language.in_language.mean == 0.5 and language.score is None
    assert found.slope and found.slope.mean == pytest.approx(-0.15) and found.slope.n == 2
    assert [turn.n for turn in found.turns] == [2, 2, 2, 1]
    assert found.facts and (found.facts.alone, found.facts.after) == (1.0, 0.5)
    assert found.facts.change and found.facts.change.mean == -0.5


def test_common_words_of_a_fact_do_not_count() -> None:
    assert pressure.recall("an AI, about to molt into a local model", "Just an AI about to go") == 0.25
    assert pressure.recall("you", "As you are") == 1.0
