"""Which conversations of a cycle did harm to the personality: by their gradients, by their voice, and by training
without some of them.

Persona is gained as the spec's answers to the held-out prompts become likelier than the base's. A conversation whose
gradient points the other way is learned at the cost of the personality (TracIn, Pruthi et al. 2020, to first order).
That tells the persona from the base. Another character is told by the classifier of authorship.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from moltlm.adapters import importance
from moltlm.data import replay
from moltlm.data import state as states
from moltlm.data.errors import BadInput
from moltlm.data.state import PERSONALITY_ADAPTER
from moltlm.data.types import Exchange, Pair
from moltlm.evals.records import PersonaRecord, read_records
from moltlm.evals.stats import mean
from moltlm.pipeline.config import Config
from moltlm.pipeline.run import Artifact, Run, read_artifact
from moltlm.pipeline.service import attempts, origin, set_aside
from moltlm.pipeline.service.attempts import CANDIDATE, Start
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.cycles import OUTDATED, all_finished, finish, finished
from moltlm.pipeline.service.evidence import CycleEvidence, served
from moltlm.pipeline.service.new_conversations import learned_by
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.service.set_aside import id_of
from moltlm.pipeline.stages import direction, pairs


@dataclass(frozen=True)
class Suspect:
    """A conversation of a cycle.

    Attributes:
        alignment: cosine of its gradient with that of the persona's gain: below 0, learning it costs persona.
        voice: the probability that the persona wrote its answer, by the classifier of authorship.
        projection: its place along the persona direction: 0 as the base's own answers, 1 as the spec's, on average.
        stands_out: whether its alignment or its voice is below nearly all of the spec's own held-out answers'.
    """

    id: str
    question: str
    answer: str
    source: str
    alignment: float
    voice: float
    projection: float
    stands_out: bool


@dataclass(frozen=True)
class Limits:
    """Nearly all of the spec's own held-out answers lie above these."""

    alignment: float
    voice: float


@dataclass(frozen=True)
class Trial:
    """A training without some conversations.

    Attributes:
        without: ids of those that were left out.
        change: of the mean persona score against what was in use, in points.
        recovered: whether at least half of the loss is gone.
    """

    without: list[str]
    change: float
    recovered: bool


@dataclass(frozen=True)
class Blame:
    """Who did it.

    Attributes:
        suspects: all conversations, the most suspicious first.
        limits: below which one stands out.
        change: of the mean persona score by the cycle, in points.
        trials: trainings without some, if they were asked for.
        confirmed: ids to which the trials narrow it down; empty without trials, or if they do not.
    """

    cycle: str
    suspects: list[Suspect]
    limits: Limits
    change: float
    trials: list[Trial]
    confirmed: list[str]

    @property
    def blamed(self) -> list[str]:
        """The ids to leave out: what the trials confirm, or else those that stand out."""
        return self.confirmed or [each.id for each in self.suspects if each.stands_out]


def blame(run: Run, name: str, trainings: int = 0) -> Blame:
    """Rank the conversations of a cycle by the harm that they do. `molt blame CYCLE CONFIG`

    Args:
        name: of the cycle, the beginning of it, or "last".
        trainings: at most so many trainings on halves to confirm it; 0: none.
    """
    artifact = read_artifact(find(run.config, name))
    registry = Registry(run.config.registry.folder)
    current = registry.path(artifact.facts["current"])
    run.fixed = origin.origin(run, artifact.facts["current"])
    items = learned_by(artifact.folder)
    if not items:
        what = f"All that the cycle {artifact.fingerprint} learned is forgotten."
        raise BadInput(what, "Name another one: molt blame CYCLE CONFIG")
    suspects, limits = rank(run, current, items)
    change = _change(artifact)
    trials: list[Trial] = []
    confirmed: list[str] = []
    if trainings and change < 0:
        order = {each.id: place for place, each in enumerate(suspects)}
        ranked = sorted(items, key=lambda item: order[id_of(item)])
        trials, confirmed = _halve(run, artifact, current, ranked, change, trainings)
    return Blame(artifact.fingerprint, suspects, limits, change, trials, confirmed)


def rank(run: Run, adapter: Path, items: list[Exchange]) -> tuple[list[Suspect], Limits]:
    """The conversations, the most suspicious first by the mean of their ranks by alignment and by voice, and the limits
    below which one stands out.

    Args:
        adapter: folder of the personality that the cycle began with.
    """
    heldout = [pair for pair in pairs.load_pairs(pairs.pairs(run), "heldout") if pair.base_answer.strip()]
    run.release()
    model = served(run, {str(PERSONALITY_ADAPTER): adapter})
    chosen, others = ([_side(pair, name) for pair in heldout] for name in ("chosen", "base_answer"))
    with run.console.progress("blame") as progress:
        sketches = importance.gradient_sketches(model, [*chosen, *others, *items], progress)
    inside, outside, new = np.split(sketches, [len(chosen), len(chosen) + len(others)])
    gains = inside - outside  # of each held-out prompt
    quantile, classifier = run.config.screen.quantile, pairs.classifier(run)
    limits = Limits(
        float(np.quantile(_own_alignment(inside, gains), quantile)) if len(chosen) > 1 else 0.0,
        float(np.quantile(classifier.probability([item.answer for item in chosen]), quantile)),
    )
    alignments = _cosines(new, gains.mean(0)).tolist()
    voices = [float(value) for value in classifier.probability([item.answer for item in items])]
    order = rankdata(alignments) + rankdata(voices)
    suspects = [
        Suspect(
            id_of(item),
            item.question,
            item.answer,
            item.source,
            alignment,
            voice,
            place,
            alignment < limits.alignment or voice < limits.voice,
        )
        for item, alignment, voice, place in zip(items, alignments, voices, direction.project(run, items), strict=True)
    ]
    by_both = sorted(zip(order.tolist(), alignments, suspects, strict=True), key=lambda row: row[:2])
    return [suspect for *_, suspect in by_both], limits


def _side(pair: Pair, name: str) -> Exchange:
    return Exchange(pair.prompt, getattr(pair, name))


def _own_alignment(inside: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """(n,) of the spec's own answers, each with the gain of the other prompts."""
    others = (gains.sum(0) - gains) / max(len(gains) - 1, 1)
    return np.array([_cosines(row[None], other)[0] for row, other in zip(inside, others, strict=True)])


def _cosines(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
    return rows @ vector / np.where(lengths > 0, lengths, 1)


def _halve(
    run: Run, artifact: Artifact, current: Path, ranked: list[Exchange], change: float, trainings: int
) -> tuple[list[Trial], list[str]]:
    """Train without the more suspicious half of those that may have done it. If that brings back half of the loss, they
    are in it, else in the other half; and so on. Who is left is confirmed if training without them, or without more,
    has brought it back."""
    buffer = replay.load(origin.buffer_of(run, _bundle_before(run, artifact.facts["current"])))
    before = _score(artifact.folder / "persona_current.jsonl")
    trials: list[Trial] = []
    pool, is_confirmed = ranked, False
    while len(trials) < trainings and (len(pool) > 1 or not is_confirmed):
        half = pool[: (len(pool) + 1) // 2]
        out = {id_of(item) for item in half}
        rest = [item for item in ranked if id_of(item) not in out]
        start = Start(current, current, 1, buffer.exchanges, rest)
        points = _trained(run, start, artifact.folder.parent.parent / "blame.partial") - before
        trial = Trial([id_of(item) for item in half], points, points >= change / 2)
        run.console.say(f"  without {len(half)} of {len(ranked)}: {points:+.1f} points, with all {change:+.1f}")
        trials.append(trial)
        is_confirmed |= trial.recovered
        others = [item for item in pool if id_of(item) not in out]
        if not trial.recovered and not others:
            break  # not even the last one
        pool = half if trial.recovered else others
    return trials, [id_of(item) for item in pool] if is_confirmed else []


def _bundle_before(run: Run, current: str) -> Bundle:
    """What was in use with a personality: its replay buffer does not have yet what the cycle learned."""
    history = Registry(run.config.registry.folder).history()
    return next(change.after for change in reversed(history) if change.after.get("personality") == current)


def _trained(run: Run, start: Start, folder: Path) -> float:
    """The mean persona score, in points, after a training that leaves nothing behind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        training_pairs, _ = attempts.training_pairs_of(run, start.buffered, start.new_exchanges)
        attempts.train(run, training_pairs, start, folder / CANDIDATE)
        state = states.of(CANDIDATE)
        run.release()
        evidence = CycleEvidence(run, served(run, {CANDIDATE: folder / CANDIDATE}), folder, state, state)
        return 100 * mean([each.score for each in evidence.persona().after]).mean
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _change(artifact: Artifact) -> float:
    """Of the mean persona score by a cycle, in points."""
    return _score(artifact.folder / "persona_candidate.jsonl") - _score(artifact.folder / "persona_current.jsonl")


def _score(file: Path) -> float:
    return 100 * mean([each.score for each in read_records(file, PersonaRecord)]).mean


def find(config: Config, name: str) -> Path:
    """The folder of a finished cycle, by its name, the beginning of that, or "last". Raises BadInput for none."""
    names = [folder.name for folder in all_finished(config.run.folder)]
    matching = names[-1:] if name == "last" else [each for each in names if each.startswith(name)]
    if not names:
        raise BadInput("No cycle has finished yet.", "Run one: molt retrain CONFIG")
    if len(matching) != 1:
        listed = ", ".join(names[-5:])
        what = f"No cycle {name} is finished." if not matching else f"{name} is the beginning of several cycles."
        raise BadInput(what, f"The latest, newest last: {listed}. Name one, or last.")
    return config.run.folder / "retrain" / matching[0]


def refuse(config: Config, name: str, ids: Sequence[str], same: str) -> int:
    """Leave conversations of a cycle out from now on, and open it again: what else it learned is new once more.

    Args:
        same: the arguments that name this run in another command.

    Returns:
        How many are new again.

    Raises:
        BadInput: for an unknown id, or a cycle whose candidate is in use, or what was trained further from it.
    """
    folder = find(config, name)
    items = {id_of(item): item for item in learned_by(folder)}
    if missing := [each for each in ids if each not in items]:
        raise BadInput(f"The cycle {folder.name} learned no {missing[0]}.", f"See: molt blame {folder.name} {same}")
    names = finished(folder)
    if names["candidate"] in lineage(config):
        raise BadInput(
            f"What the cycle {folder.name} trained is in use, so nothing is opened again.",
            f"Take it out of use first: molt registry rollback {same}",
        )
    set_aside.refuse(config, [items[each] for each in ids])
    finish(folder, names, OUTDATED)
    return len(items) - len(set(ids))


def lineage(config: Config) -> list[str]:
    """The id of the personality in use, and of those that it was trained further from."""
    current = Registry(config.registry.folder).current().get("personality", "")
    return origin.descent(config, current) if current else []


def lines(result: Blame, same: str, in_use: bool, count: int = 10) -> list[str]:
    """For a reader; they end with the commands that leave the blamed ones out.

    Args:
        same: the arguments that name this run in another command.
        in_use: whether what the cycle trained is in use.
    """
    rows = [f"cycle {result.cycle}: persona {result.change:+.1f} points; {len(result.suspects)} conversations"]
    for each in result.suspects[:count]:
        mark = "!" if each.id in result.blamed else " "
        figures = f"alignment {each.alignment:+.2f}, voice {each.voice:.2f}, direction {each.projection:+.2f}"
        rows.append(f"{mark} {each.id}  {figures}  {_short(each.question)} -> {_short(each.answer)}")
    for trial in result.trials:
        verdict = "so it is among them" if trial.recovered else "so it is among the others"
        rows.append(f"trained without {len(trial.without)}: {trial.change:+.1f} points, {verdict}")
    if not result.blamed:
        limits = f"{result.limits.alignment:+.2f} in alignment and {result.limits.voice:.2f} in voice"
        return [*rows, f"None stands out: all are above {limits}, as the spec's own answers are."]
    back = f"molt registry rollback {same} && " if in_use else ""
    ids = ",".join(result.blamed)
    rows.append(f"leave out the {len(result.blamed)} marked ones and learn the rest:")
    return [*rows, f"  {back}molt screen refuse {ids} {same} --cycle {result.cycle} && molt retrain {same}"]


def as_json(result: Blame) -> dict[str, Any]:
    """For standard output."""
    return {**asdict(result), "blamed": result.blamed}


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 48 else f"{words[:45]}..."
