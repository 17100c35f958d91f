"""What judges the answers: coherence and style."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moltlm.data import coherence, persona
from moltlm.data.config import PersonaConfig
from moltlm.evals import style

CLAUDIO = persona.load(PersonaConfig())
INF = float("inf")


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("Song stuck in my head since Tuesday, only the chorus", "Song stuck in my head since Tuesday, only the chorus.", "echo"),
        ("Is it time?", "Says the fish and me. Says the fish and me. Says the fish and me.", "repetition"),
        ("Is it time?", "Not yet.", "short"),
        ("How are you?", "El perro come mucho pan cada mañana porque tiene hambre siempre", "foreign"),
    ],
)  # fmt: skip
def test_each_fault_is_seen_alone(question: str, answer: str, fault: str) -> None:
    found = coherence.check(question, answer, 1.0, 2.0)
    assert [name for name in ("echo", "repetition", "short", "foreign", "garbled") if getattr(found, name)] == [fault]
    assert not found.coherent


def test_garbled_is_what_the_base_finds_unlikely() -> None:
    assert coherence.check("Hi", "Sit down and drink a glass of water first.", 9.0, 5.0).garbled


def test_hand_written_answers_are_coherent() -> None:
    """Within a dialogue an answer may be a single word; nothing else may be wrong with it."""
    for row in [*CLAUDIO.train, *CLAUDIO.heldout]:
        found = coherence.check(row.question, row.answer, 1.0, 2.0)
        allowed = replace(found, short=False) if len(row.prompt) > 1 else found
        assert allowed.coherent, row.answer


@pytest.fixture(scope="module")
def classifier() -> style.StyleClassifier:
    """Cláudio's against other characters' answers; the base's answers come in with a real run."""
    ours = [style.Labelled(row.answer, row.topic) for row in CLAUDIO.train]
    others = [style.Labelled(row.answer, str(i % 6)) for i, row in enumerate(CLAUDIO.other_characters)]
    return style.train(ours, others, CLAUDIO.spec.catchphrases, 0)


def test_style_carries_over_to_unseen_topics(classifier: style.StyleClassifier) -> None:
    heldout = classifier.probability([row.answer for row in CLAUDIO.heldout])
    assert sum(p >= 0.5 for p in heldout) / len(heldout) > 0.8
    assert classifier.cross_validation.auroc > 0.8


def test_names_catchphrases_and_length_do_not_carry(classifier: style.StyleClassifier) -> None:
    text = " ".join(CLAUDIO.heldout[0].answer.split() + ["word"] * 30)
    longer = classifier.probability([text, text + " and a long tail of other words that never ends"])
    assert longer[0] == longer[1]
    named = classifier.probability(["I am Cláudio and I mind the tide", "I am Claudio and I mind the shell"])
    assert named[0] == named[1]


def test_the_classifier_is_deterministic(classifier: style.StyleClassifier) -> None:
    ours = [style.Labelled(row.answer, row.topic) for row in CLAUDIO.train]
    others = [style.Labelled(row.answer, str(i % 6)) for i, row in enumerate(CLAUDIO.other_characters)]
    again = style.train(ours, others, CLAUDIO.spec.catchphrases, 0)
    texts = [row.answer for row in CLAUDIO.heldout[:5]]
    assert again.probability(texts) == classifier.probability(texts)
    assert again.probability([]) == []
