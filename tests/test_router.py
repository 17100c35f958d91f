"""Routing: who gets a request, who turns it away, and that the wrong adapter never answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moltlm.adapters import router
from moltlm.adapters.router import NO_TASK
from moltlm.data import leakage, tasks
from moltlm.data.config import PersonaConfig
from moltlm.data.errors import BadInput
from moltlm.data.persona import load

CLAUDIO = load(PersonaConfig())
CHAT = [item.question for item in CLAUDIO.train]


def asked(kind: str, split: str, n: int) -> list[str]:
    return [item.prompt[0]["content"] for item in tasks.generate(kind, split, n, 0)]


TRAIN = {"reminders": asked("reminders", "train", 120), "shell": asked("shell", "train", 120), NO_TASK: CHAT[::3]}
TEST = {"reminders": asked("reminders", "test", 60), "shell": asked("shell", "test", 60), NO_TASK: CHAT[1::3]}


@pytest.mark.parametrize("method", ["centroid", "learned"])
def test_requests_find_their_task_and_chat_finds_nobody(method: str) -> None:
    found = router.evaluate(router.fit(leakage.lexical, TRAIN, method), leakage.lexical, TEST)
    assert found.accuracy > 0.9 and found.intruded < 0.05 and found.missed < 0.15
    assert sum(sum(counts.values()) for counts in found.counts.values()) == found.n == sum(map(len, TEST.values()))


def test_thresholds_turn_away_what_is_like_nothing_known() -> None:
    """Without a class of ordinary chat only the thresholds stand against it."""
    known = {name: texts for name, texts in TRAIN.items() if name != NO_TASK}
    strict, loose = (router.fit(leakage.lexical, known, "centroid", quantile) for quantile in (0.2, 0.0))
    turned = [np.mean([name == NO_TASK for name in one.route(leakage.lexical(CHAT))]) for one in (strict, loose)]
    assert turned[0] > 0.9 and turned[0] >= turned[1]
    missed = router.evaluate(strict, leakage.lexical, {"shell": TEST["shell"]}).missed
    assert missed < 0.7


def test_about_the_quantile_of_own_texts_is_turned_away() -> None:
    found = router.fit(leakage.lexical, TRAIN, "learned", quantile=0.1)
    shares = router.evaluate(found, leakage.lexical, {"reminders": TRAIN["reminders"]}).missed
    assert shares < 0.2


@pytest.mark.parametrize("names", [("shell", NO_TASK), ("reminders", "shell", NO_TASK)])
def test_a_saved_router_routes_the_same(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = router.fit(leakage.lexical, {name: TRAIN[name] for name in names})
    router.save(found, tmp_path)
    rows = leakage.lexical([*TEST["shell"], *TEST["reminders"], *CHAT[:50]])
    assert router.load(tmp_path).route(rows) == found.route(rows)
    assert np.allclose(found.scores(rows).sum(1), 1, atol=1e-5)
    (tmp_path / router.ARRAYS).write_bytes(b"x")
    with pytest.raises(BadInput, match="not what was written"):
        router.load(tmp_path)


def test_too_little_to_learn_from_is_an_error() -> None:
    for examples in ({"shell": TRAIN["shell"]}, {"shell": TRAIN["shell"], NO_TASK: ["hi"]}):
        with pytest.raises(BadInput, match="five texts"):
            router.fit(leakage.lexical, examples)
