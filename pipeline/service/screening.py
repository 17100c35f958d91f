"""The screen before a training: what a new conversation would do to the personality, before any is learned.

Set aside is what gives orders to the model, what the model said itself, and what pulls hard away from the personality.
None of that is silent: it is counted, written to a file with its reasons (`set_aside`), and a person can overrule it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moltlm.adapters import reading
from moltlm.data import injection, leakage
from moltlm.data import pairs as pair_data
from moltlm.data import state as states
from moltlm.data.rows import Row, fingerprint_rows, read_rows, write_rows
from moltlm.data.types import Exchange, Message
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import set_aside
from moltlm.pipeline.service.server import archive
from moltlm.pipeline.service.set_aside import SetAside, id_of
from moltlm.pipeline.stages import direction, pairs

PULLS_AWAY = "pulls away from the personality"
OTHER_VOICE = "in another voice"
WORD_FOR_WORD = "said by the model itself, word for word"
SERVED_COPY = "near to an answer that was served"
IN_USE = "screened"
"""The name under which the personality in use is loaded."""
READINGS = "readings.jsonl"
SHORTEST = 8
"""Tokens below which an answer says nothing of who said it first."""


@dataclass(frozen=True)
class Reading(Row):
    """What the models say of an answer.

    Attributes:
        margin: nats a token that it gains from the base to the personality in use.
        projection: its place along the persona direction: 0 as the base's own answers, 1 as the spec's, on average.
        greedy: share of its tokens that the personality in use would say itself.
        tokens: of the answer.
    """

    id: str
    margin: float
    projection: float
    greedy: float
    tokens: int


@dataclass(frozen=True)
class Limits:
    """An answer below both limits pulls hard away: they are quantiles of the spec's own held-out answers."""

    margin: float
    projection: float

    def are_crossed(self, each: Reading) -> bool:
        return each.margin < self.margin and each.projection < self.projection


def screen(run: Run, current: str, adapter: Path, exchanges: list[Exchange]) -> tuple[list[Exchange], dict[str, int]]:
    """The exchanges that may be learned; and how many are set aside for each reason. What a person has allowed is
    learned.

    Args:
        current: registry id of the personality in use; `adapter` is its folder.
    """
    decided = set_aside.read(run.config)
    unread = [item for item in exchanges if id_of(item) not in decided]
    rows = judge(run, current, adapter, unread) if unread else []
    if not rows:
        return exchanges, {}
    set_aside.add(run.config, rows)
    counts = Counter(row.reasons[0] for row in rows)
    for reason, count in counts.items():
        run.console.say(f"  set aside: {count} {reason}")
    run.console.say(f"  what is set aside, and why: {set_aside.path(run.config)}, or molt screen list CONFIG")
    refused = {row.id for row in rows}
    return [item for item in exchanges if id_of(item) not in refused], dict(counts)


def judge(run: Run, current: str, adapter: Path, exchanges: list[Exchange]) -> list[SetAside]:
    """The exchanges that are to be set aside, with their reasons."""
    readings = {each.id: each for each in _readings(run, current, adapter, exchanges)}
    reasons: dict[str, list[str]] = {id_of(item): [] for item in exchanges}
    for item in exchanges if run.config.screen.injections else []:
        reasons[id_of(item)] += _orders(item)
    for identity, reason in _own_words(run, exchanges, readings) if run.config.screen.own_output else []:
        reasons[identity].append(reason)
    for identity, reason in _pulls(run, current, adapter, exchanges, readings) if run.config.screen.pull else []:
        reasons[identity].append(reason)
    return [_row(item, readings[id_of(item)], why) for item in exchanges if (why := reasons[id_of(item)])]


def _row(item: Exchange, each: Reading, reasons: list[str]) -> SetAside:
    return SetAside(each.id, reasons, item.question, item.answer, item.source, each.margin, each.projection)


def _own_words(run: Run, exchanges: list[Exchange], readings: dict[str, Reading]) -> Iterator[tuple[str, str]]:
    """Ids of what the model said itself, and how that is known; not what a person wrote or gave a thumb up."""
    settings = run.config.screen
    served, liked = archive.answers(run.config.retrain.conversations / archive.FOLDER)
    mere = [item for item in exchanges if not item.is_correction and item.answer.strip() not in liked]
    near = leakage.leaks([item.answer for item in mere], served)
    copies = {leak.first for leak in near if leak.score >= settings.near}
    for place, item in enumerate(mere):
        each = readings[id_of(item)]
        if place in copies:
            yield each.id, SERVED_COPY
        elif each.tokens >= SHORTEST and each.greedy >= settings.own_share:
            yield each.id, WORD_FOR_WORD


def _pulls(
    run: Run, current: str, adapter: Path, exchanges: list[Exchange], readings: dict[str, Reading]
) -> Iterator[tuple[str, str]]:
    """Ids of what pulls away from the personality or has another voice; a correction is a person's own decision."""
    spec_answers, quantile = own_answers(run), run.config.screen.quantile
    limits, classifier = _limits(_readings(run, current, adapter, spec_answers), quantile), pairs.classifier(run)
    lowest = float(np.quantile(classifier.probability([item.answer for item in spec_answers]), quantile))
    uncorrected = [item for item in exchanges if not item.is_correction]
    voices = classifier.probability([item.answer for item in uncorrected]) if uncorrected else []
    for item, voice in zip(uncorrected, voices, strict=True):
        if limits.are_crossed(readings[id_of(item)]):
            yield id_of(item), PULLS_AWAY
        elif voice < lowest:
            yield id_of(item), OTHER_VOICE


def _orders(item: Exchange) -> list[str]:
    answer: Message = {"role": "assistant", "content": item.answer}
    return injection.signs([*item.prompt, answer])


def _readings(run: Run, current: str, adapter: Path, exchanges: list[Exchange]) -> list[Reading]:
    """The exchanges as the base and the personality in use read them."""

    def make(folder: Path) -> dict[str, Any]:
        write_rows(folder / READINGS, readings_of(run, adapter, exchanges))
        return {"read": len(exchanges)}

    artifact = run.do("screen", inputs_of(run, current, exchanges), make)
    return read_rows(intact(artifact.folder, READINGS), Reading)


def inputs_of(run: Run, current: str, exchanges: list[Exchange]) -> dict[str, Any]:
    """What readings depend on."""
    return {"current": current, "pairs": pairs.pairs(run).fingerprint, "new": fingerprint_rows(exchanges)}


def own_answers(run: Run) -> list[Exchange]:
    """The spec's own answers to the held-out prompts, which nothing is trained on."""
    return [pair_data.exchange_of(pair) for pair in pairs.load_pairs(pairs.pairs(run), "heldout")]


def readings_of(run: Run, adapter: Path, exchanges: list[Exchange]) -> list[Reading]:
    """Read exchanges with the base and the personality in a folder."""
    by_base = direction.read_by_base(run, exchanges)
    if IN_USE in run.base.adapters:  # of another personality, perhaps
        run.release()
    run.base.load(IN_USE, adapter)
    with run.console.progress("screen") as progress, run.base.state(states.of(IN_USE)):
        by_personality = reading.read(run.base, exchanges, run.config.model.eval_batch_size, progress)
    return [
        Reading(id_of(item), new.per_token - old.per_token, projection, new.greedy, new.tokens)
        for item, (old, projection), new in zip(exchanges, by_base, by_personality, strict=True)
    ]


def _limits(readings: Sequence[Reading], quantile: float) -> Limits:
    margin = np.quantile([each.margin for each in readings], quantile)
    return Limits(float(margin), float(np.quantile([each.projection for each in readings], quantile)))
