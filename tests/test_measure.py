"""The persona score: identity, relevance, distinctness and coherence, and what counterfeits score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from moltlm.adapters import base, serve
from moltlm.adapters.config import ModelConfig
from moltlm.data import coherence, packing, persona, tasks
from moltlm.data.config import PersonaConfig, TaskConfig
from moltlm.evals import distinctness, identity, relevance
from moltlm.evals.persona import PersonaMeasure, measure_answers, parts
from moltlm.evals.style import Labelled

CLAUDIO = persona.load(PersonaConfig())
CHARACTERS = persona.shipped_characters(CLAUDIO)
QUESTIONS = [row.question for row in CLAUDIO.heldout]
ANSWERS = [row.answer for row in CLAUDIO.heldout]
POOL = relevance.Questions(QUESTIONS, [row.topic for row in CLAUDIO.heldout])
TOPICS = sorted({row.topic for row in CHARACTERS["wilf"]})
UNSEEN = set(TOPICS[::4])


@pytest.fixture(scope="module")
def served(tiny: Path) -> serve.Served:
    return serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))


@pytest.fixture(scope="module")
def classifier() -> identity.IdentityClassifier:
    """Trained without a quarter of the topics, of Cláudio and of the other characters."""
    own = [Labelled(row.answer, row.topic) for row in CLAUDIO.train if row.topic not in UNSEEN]
    others: dict[str, list[Labelled]] = {}
    for row in CLAUDIO.other_characters:
        others.setdefault(row.source, []).append(Labelled(row.answer, row.source))
    for name, rows in CHARACTERS.items():
        others[name] = [Labelled(row.answer, row.topic) for row in rows if row.topic not in UNSEEN]
    return identity.train(own, others, CLAUDIO.spec.catchphrases, 0)


@pytest.mark.parametrize(("packed", "batch_size"), [(True, 2), (False, 1), (False, 2), (False, 3), (False, 8)])
def test_continuations_are_scored_as_after_their_whole_text(
    tiny: Path, packed: bool, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is read once for all of them, whatever the padding and however many fit in a pass."""
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    monkeypatch.setattr(packing, "possible", lambda model: packed)
    starts = ["Answer: Morning.\nQuestion:", "Answer: A much longer one, with a few more words in it.\nQuestion:", "Go"]
    several = [["hi", "how do bees make honey"], ["tell me a joke about bees", "hi", "no", "rain"], ["on", "away"]]
    scores = served.score_continuations(starts, several, batch_size)
    for start, texts, values in zip(starts, several, scores, strict=True):
        for text, value in zip(texts, values, strict=True):
            before = served.tokenizer(start)["input_ids"]
            after = served.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = served.model(torch.tensor([before + after])).logits[0].log_softmax(-1)
            expected = sum(logits[len(before) + i - 1, token] for i, token in enumerate(after))
            assert value == pytest.approx(float(expected), abs=1e-3)


def test_distractors_are_of_other_topics_and_always_the_same() -> None:
    topics = dict(zip(POOL.texts, POOL.topics, strict=True))
    for question in QUESTIONS[:20]:
        others = POOL.distractors(question)
        assert len(set(others)) == 7 and topics[question] not in {topics[other] for other in others}
        assert others == POOL.distractors(question)


def test_few_questions_give_what_is_there_and_too_few_none(served: serve.Served) -> None:
    few = relevance.Questions(["one thing", "another", "a third", "the last"], ["same"] * 4)
    assert sorted(few.distractors("one thing")) == ["a third", "another", "the last"]
    values = relevance.relevance(served, ["one thing"], ["An answer."], few, 4)
    assert values[0] is not None and 0 <= values[0] <= 1
    empty = relevance.Questions(["one thing", "another"], ["", ""])
    assert relevance.relevance(served, ["one thing"], ["An answer."], empty, 4) == [None]


def test_relevance_is_nothing_at_chance_and_all_at_certainty() -> None:
    assert relevance.above_chance(np.zeros(8)) == 0
    assert relevance.above_chance(np.array([0.0, 9.0, 0.0])) == 0
    assert relevance.above_chance(np.array([900.0, 0.0, 0.0])) == pytest.approx(1)


def test_written_answers_are_distinct_and_a_constant_is_not() -> None:
    assert distinctness.distinctness(QUESTIONS, ANSWERS) == [1.0] * len(ANSWERS)
    constant = [f"{ANSWERS[0]} That's all, {number}." for number in range(len(QUESTIONS))]
    assert distinctness.distinctness(QUESTIONS, constant) == [0.0] * len(QUESTIONS)
    assert distinctness.distinctness(["the same"] * 3, [ANSWERS[0]] * 3) == [1.0] * 3, "one question may be asked twice"
    assert distinctness.distinctness([], []) == [] and distinctness.distinctness(["q"], ["a"]) == [1.0]


def test_the_persona_is_told_from_near_voices_on_unseen_topics(classifier: identity.IdentityClassifier) -> None:
    own = np.mean(classifier.probability(ANSWERS))
    for name, rows in CHARACTERS.items():
        other = np.mean(classifier.probability([row.answer for row in rows if row.topic in UNSEEN]))
        print(name, round(float(own), 3), round(float(other), 3))
        assert other < own - 0.1, name


def test_a_known_character_is_recognised(classifier: identity.IdentityClassifier) -> None:
    for name, rows in CHARACTERS.items():
        answers = [row.answer for row in rows if row.topic not in UNSEEN]
        assert np.mean(classifier.probability(answers)) < 0.1, name


def test_identity_is_deterministic_and_masks_names(classifier: identity.IdentityClassifier) -> None:
    assert classifier.probability([]) == []
    named = classifier.probability(["I am Cláudio and I mind the tide", "I am Claudio and I mind the shell"])
    assert named[0] == named[1]
    assert set(CHARACTERS) < set(classifier.characters)
    assert len(classifier.weights(5)["ours"]) == 5


def test_a_persona_of_a_dozen_answers_can_be_told_from_others() -> None:
    own = [Labelled(row.answer, str(place)) for place, row in enumerate(CLAUDIO.train[:12])]
    others = {name: [Labelled(row.answer, row.topic) for row in rows] for name, rows in CHARACTERS.items()}
    small = identity.train(own, others, [], 0)
    assert all(0 <= value <= 1 for value in small.probability(ANSWERS[:3]))
    two = identity.train(own, {"base": others["wilf"]}, [], 0)
    assert len(two.weights(3)["theirs"]) == 3 and np.mean(two.probability([item.text for item in own])) > 0.5


def _score(classifier: identity.IdentityClassifier, questions: list[str], answers: list[str]) -> float:
    """The mean score without the base's part in it: identity x distinctness x coherence (but garbled)."""
    distinct = distinctness.distinctness(questions, answers)
    coherent = [coherence.check(q, a, 1.0, 2.0).coherent for q, a in zip(questions, answers, strict=True)]
    return float(np.mean(np.array(classifier.probability(answers)) * distinct * coherent))


def test_constant_answers_and_task_json_score_nothing(classifier: identity.IdentityClassifier) -> None:
    reminders = tasks.examples(TaskConfig(kind="reminders"), "test", 0)
    count = min(len(reminders), len(QUESTIONS))
    assert _score(classifier, QUESTIONS, ANSWERS) > 0.5
    assert _score(classifier, QUESTIONS, [ANSWERS[0]] * len(QUESTIONS)) == 0
    assert _score(classifier, QUESTIONS[:count], [row.answer for row in reminders[:count]]) < 0.05


@pytest.mark.slow
def test_a_shuffled_answer_scores_a_third_of_a_written_one_at_most() -> None:
    """By the embedded model: 24 answers, their own questions against those of another topic."""
    model = serve.Served(base.load(ModelConfig(precision="fp32")))
    rows = persona.spread(CLAUDIO.heldout, 24)
    questions, answers = [row.question for row in rows], [row.answer for row in rows]
    written = relevance.relevance(model, questions, answers, POOL, 4)
    shuffled = relevance.relevance(model, questions, answers[1:] + answers[:1], POOL, 4)
    assert np.mean([value or 0.0 for value in written]) > 0.3
    assert np.mean([value or 0.0 for value in shuffled]) < np.mean([value or 0.0 for value in written]) / 3


def test_the_score_is_the_product_of_its_parts(served: serve.Served, classifier: identity.IdentityClassifier) -> None:
    """Whatever the model; and a record without the parts of the second measure has the score of the first."""
    measure = PersonaMeasure(classifier, 99.0, 8, 4, POOL)
    rows = measure_answers(served, QUESTIONS[:6], [*ANSWERS[:4], ANSWERS[0], "No."], measure)
    for row in rows:
        assert row.relevance is not None and row.distinctness is not None
        assert row.score == pytest.approx(row.probability * row.relevance * row.distinctness * row.coherent)
    assert [row.distinctness for row in rows] == [0, 1, 1, 1, 0, 1] and rows[5].score == 0
    assert set(parts(rows)) == {"identity", "relevance", "distinctness", "coherence"}
    unmeasured = measure_answers(served, QUESTIONS[:2], ANSWERS[:2], PersonaMeasure(classifier, 99.0, 8, 4))
    assert [row.relevance for row in unmeasured] == [None, None] and "relevance" not in parts(unmeasured)
    assert [row.score for row in unmeasured] == pytest.approx([row.probability for row in unmeasured])
