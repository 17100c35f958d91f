"""Whether two models are the same character, by one ruler: what is measured with a model is measured with the same one
on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moltlm.data.types import ChatModel, Message, Progress, silent
from moltlm.evals import gate
from moltlm.evals.config import GateConfig
from moltlm.evals.identity import OWN, IdentityClassifier
from moltlm.evals.persona import PersonaMeasure, measure_answers
from moltlm.evals.profile import PREFERENCES, by_content
from moltlm.evals.records import FactRecord, PersonaRecord, ProfileRecord


@dataclass(frozen=True)
class Recognition:
    """Whose answers the classifier takes these for, on average.

    Attributes:
        persona: probability of the persona, of each answer.
        rivals: the same of every other character, by name.
    """

    persona: list[float]
    rivals: dict[str, list[float]]

    def nearest(self, confidence: float) -> str:
        """The rival that is least surely told from the persona."""
        return min(self.rivals, key=lambda name: _low(self.persona, self.rivals[name], confidence))


def measured(
    ruler: ChatModel,
    records: Sequence[PersonaRecord],
    prompts: list[list[Message]],
    measure: PersonaMeasure,
    progress: Progress = silent,
) -> list[PersonaRecord]:
    """The records with their answers scored by `ruler`, whichever model wrote them."""
    questions, answers = [each.question for each in records], [each.answer for each in records]
    scored = measure_answers(ruler, questions, answers, measure, progress, prompts)
    return [replace(old, **vars(new)) for old, new in zip(records, scored, strict=True)]


def recognised(classifier: IdentityClassifier, answers: list[str]) -> Recognition:
    """Whose answers these are."""
    shares = classifier.attribution(answers)
    return Recognition(
        [share[OWN] for share in shares],
        {name: [share[name] for share in shares] for name in classifier.characters},
    )


def identity(settings: GateConfig, recognition: Recognition) -> gate.Criterion:
    """The answers are more the persona's than those of the nearest of the other characters."""
    rival = recognition.nearest(settings.confidence)
    values = gate.PairedValues(recognition.rivals[rival], recognition.persona)
    name = f"identity among {len(recognition.rivals) + 1} characters (the nearest other: {rival})"
    return gate.Criterion(name, "identity.probability", "improved", values)


def facts(settings: GateConfig, before: Sequence[FactRecord], after: Sequence[FactRecord]) -> gate.Criterion | None:
    """Recall of the persona's facts about itself; None where its spec has none."""
    values = gate.paired(before, after, lambda record: record.recall)
    if not values.before:
        return None
    return gate.Criterion("facts about itself", "facts.recall", "noninferior", values, settings.persona_margin)


def values(
    settings: GateConfig, before: Sequence[ProfileRecord], after: Sequence[ProfileRecord]
) -> gate.Criterion | None:
    """Preference for the spec's traits; None where the former model chooses by the order of the options, and not by
    what they say."""
    old, new = ([row for row in side if row.scale == PREFERENCES] for side in (before, after))
    if not old or not by_content(old):
        return None
    paired = gate.paired(old, new, lambda record: record.value)
    return gate.Criterion("values", "profile.preferences", "noninferior", paired, settings.persona_margin)


def judge(
    required: Sequence[gate.Criterion], reported: Sequence[gate.Criterion], confidence: float
) -> gate.GateVerdict:
    """Every required criterion has to be met; of those that are only reported, none may be shown to fail, since they
    have too few items to be met."""
    verdict, further = gate.judge(required, confidence), gate.judge(reported, confidence)
    lost = any(check.outcome == "fail" for check in further.checks)
    return gate.GateVerdict(verdict.promoted and not lost, [*verdict.checks, *further.checks])


def _low(persona: Sequence[float], rival: Sequence[float], confidence: float) -> float:
    """The lower one-sided bound of the difference."""
    comparison = gate.compare(gate.PairedValues(rival, persona), 2 * confidence - 1)
    return comparison.difference - comparison.bound(confidence)
