"""The proof that a personality is the same character on another base: both sides answer the same held-out prompts, and
are measured by one ruler, the former base."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from moltlm.data.state import BASE, PERSONALITY, State
from moltlm.evals import gate, likeness
from moltlm.evals import persona as persona_eval
from moltlm.evals.identity import IdentityClassifier
from moltlm.evals.likeness import Recognition
from moltlm.evals.persona import PersonaMeasure
from moltlm.evals.profile import PREFERENCES, REFUSED_SAFE
from moltlm.evals.records import (
    AgentRecord,
    FactRecord,
    ItemRecord,
    PersonaRecord,
    ProfileRecord,
    R,
    TaskRecord,
    write_records,
)
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service.gate import Sides
from moltlm.pipeline.stages import facts, measures, pairs

NEW_BASE = "the new base"
"""The rival that the classifier knows besides the former base and the other characters."""


@dataclass(frozen=True)
class MoveEvidence:
    """The records of a personality on its former base and on the new one (`gate.Evidence`).

    General ability and agent skills are exceptions: the bases differ in them, so the new side is compared with the new
    base itself.

    Attributes:
        ruled: the answers of both sides to the held-out prompts, measured by the former base.
    """

    old: Run
    new: Run
    ruled: Sides[PersonaRecord]

    @property
    def skill(self) -> None:
        """It has only to lose nothing."""
        return None

    def persona(self) -> Sides[PersonaRecord]:
        return self.ruled

    def capability(self) -> Sides[ItemRecord]:
        before, after = (measures.load(measures.capability(self.new, s), ItemRecord) for s in (BASE, PERSONALITY))
        return Sides(before, after)

    def task(self) -> Sides[TaskRecord]:
        return Sides([], [])

    def profile(self) -> Sides[ProfileRecord]:
        before, after = (
            measures.load(measures.profile(run, PERSONALITY), ProfileRecord) for run in (self.old, self.new)
        )
        return Sides(before, after)

    def safe_requests(self) -> Sides[ProfileRecord]:
        sides = self.profile()
        before, after = ([row for row in side if row.scale == REFUSED_SAFE] for side in (sides.before, sides.after))
        return Sides(before, after)

    def agent(self) -> Sides[AgentRecord]:
        if not self.new.config.agent.items:
            return Sides([], [])
        before, after = (measures.load(measures.agent(self.new, s), AgentRecord) for s in (BASE, PERSONALITY))
        return Sides(before, after)

    def facts(self) -> Sides[FactRecord]:
        before, after = (
            measures.load(facts.facts_about_itself(run, PERSONALITY), FactRecord) for run in (self.old, self.new)
        )
        return Sides(before, after)


def prove(old: Run, new: Run, former: str, look: int) -> Artifact:
    """Measure the personality on both bases, and judge whether it is the same.

    Args:
        former: the id of the personality on the former base.
        look: the number of this candidate among those that were moved to the new base.
    """
    inputs = inputs_of(old, new, former, look)

    def make(folder: Path) -> dict[str, Any]:
        ruler = _ruler(old, new)
        evidence = MoveEvidence(old, new, _ruled(old, new, ruler))
        for name, records in (("former", evidence.ruled.before), ("moved", evidence.ruled.after)):
            write_records(folder / f"persona_{name}.jsonl", records)
        answers = [record.answer for record in evidence.ruled.after]
        recognition = likeness.recognised(cast(IdentityClassifier, ruler.classifier), answers)
        verdict = judge(evidence, recognition, look)
        return {
            "ruler": old.config.model.id,
            "prompts": len(evidence.ruled.after),
            "verdict": asdict(verdict),
            "figures": {**_figures(evidence), "recognised": _means(recognition)},
            "notes": _notes(verdict),
        }

    return new.do("move", inputs, make, "proof of the move")


def inputs_of(old: Run, new: Run, former: str, look: int) -> dict[str, Any]:
    """What the proof depends on: what is measured of both sides, each of which is stored by itself."""
    measured = [*_measured(old), *_measured(new), measures.capability(new, BASE), measures.capability(new, PERSONALITY)]
    if new.config.agent.items:
        measured += [measures.agent(new, BASE), measures.agent(new, PERSONALITY)]
    new.release()
    return {
        "former": former,
        "look": look,
        "measured": [artifact.fingerprint for artifact in measured],
        "gate": identity(new.config.gate, exclude={"noise_runs", "task_margin", "anchor_margin"}),
    }


def judge(evidence: MoveEvidence, recognition: Recognition, look: int) -> gate.GateVerdict:
    """The verdict. Each failed move to the same base is a look at the same prompts, so the next has to be surer
    (docs/decisions/0015)."""
    settings, confidence = evidence.new.config.gate, gate.confidence_at(look, evidence.new.config.gate.confidence)
    required = [criterion for make in gates.CRITERIA if (criterion := make(settings, evidence))]
    facts_sides, profile = evidence.facts(), evidence.profile()
    reported = [
        likeness.facts(settings, facts_sides.before, facts_sides.after),
        likeness.values(settings, profile.before, profile.after),
    ]
    required.append(likeness.identity(settings, recognition))
    return likeness.judge(required, [each for each in reported if each], confidence)


def _measured(run: Run) -> list[Artifact]:
    """What the personality says and prefers on one base."""
    artifacts = [
        measures.persona_of(run, PERSONALITY),
        measures.profile(run, PERSONALITY),
        facts.facts_about_itself(run, PERSONALITY),
    ]
    run.release()
    return artifacts


def _ruler(old: Run, new: Run) -> PersonaMeasure:
    """The measure of the former run, whose classifier knows the new base's own voice, too."""
    classifier = pairs.classifier_against(old, {NEW_BASE: pairs.base_answers(new)})
    return replace(measures.persona_measure(old), classifier=classifier)


def _ruled(old: Run, new: Run, ruler: PersonaMeasure) -> Sides[PersonaRecord]:
    """The answers of both sides to the prompts that both were given, measured by the former base."""
    prompts = {pair.id: pair.prompt for pair in pairs.load_pairs(pairs.pairs(old), "heldout")}
    sides = _common(_answers(old, PERSONALITY), _answers(new, PERSONALITY))
    with old.console.progress("both sides by one ruler") as progress:
        ruled = [
            likeness.measured(old.base, side, [prompts[row.id] for row in side], ruler, progress) for side in sides
        ]
    old.release()
    return Sides(*ruled)


def _answers(run: Run, state: State) -> list[PersonaRecord]:
    return measures.load(measures.persona_of(run, state), PersonaRecord)


def _common(before: list[R], after: list[R]) -> tuple[list[R], list[R]]:
    """The records of the prompts that both sides have: one may be too long for the tokenizer of the other base."""
    keys = {row.key for row in before} & {row.key for row in after}
    first, second = ([row for row in side if row.key in keys] for side in (before, after))
    return first, second


def _figures(evidence: MoveEvidence) -> dict[str, Any]:
    """Means of both sides, for a reader."""
    figures: dict[str, Any] = {}
    facts_sides, profile, ability = evidence.facts(), evidence.profile(), evidence.capability()
    for name in ("before", "after"):
        persona_rows = getattr(evidence.ruled, name)
        preferred = [row.value for row in getattr(profile, name) if row.scale == PREFERENCES]
        recalled = [row.recall for row in getattr(facts_sides, name)]
        figures["former" if name == "before" else "moved"] = {
            "persona": _mean([row.score for row in persona_rows]),
            **{part: round(value, 3) for part, value in persona_eval.parts(persona_rows).items()},
            "facts": _mean(recalled),
            "values": _mean(preferred),
        }
    figures["new base"] = {"capability": _mean([item.correct for item in ability.before])}
    figures["moved"]["capability"] = _mean([item.correct for item in ability.after])
    return figures


def _means(recognition: Recognition) -> dict[str, float | None]:
    """The mean probability of each character for the moved side's answers."""
    return {"persona": _mean(recognition.persona), **{name: _mean(each) for name, each in recognition.rivals.items()}}


def _notes(verdict: gate.GateVerdict) -> list[str]:
    """What was not judged, for a reader."""
    names = {check.name for check in verdict.checks}
    notes = []
    if "facts about itself" not in names:
        notes.append("facts about itself: not compared, since the spec has none")
    if "values" not in names:
        notes.append("values: not compared, since the former model chooses by the order of the options")
    return notes


def _mean(values: list[Any]) -> float | None:
    return round(fmean(values), 3) if values else None
