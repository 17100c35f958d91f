"""The tasks in use above a personality that is moved: each is trained again on the new base, or left behind."""

from __future__ import annotations

from dataclasses import asdict

from moltlm.adapters import card
from moltlm.data.errors import MoltError
from moltlm.data.state import PERSONALITY, PERSONALITY_ADAPTER, Adapter
from moltlm.evals import gate
from moltlm.evals.records import AgentRecord, ItemRecord, PersonaRecord, ProfileRecord, TaskRecord
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.gate import Sides
from moltlm.pipeline.service.rebase import LOST, TRAINED_AGAIN, TaskResult
from moltlm.pipeline.stages import measures, tasks


class TaskEvidence:
    """A task trained again on the new base: its skill against that on the former one, its character against that of the
    new personality alone (`gate.Evidence`)."""

    skill = None

    def __init__(self, old: Run, new: Run, adapter: Adapter) -> None:
        self._old, self._new, self._adapter = old, new, adapter

    def task(self) -> Sides[TaskRecord]:
        name, sides = self._adapter.name, []
        for run in (self._old, self._new):
            sides.append(measures.load(measures.task_score(run, name, layout.state_of(run, self._adapter)), TaskRecord))
            run.release()
        return Sides(*sides)

    def persona(self) -> Sides[PersonaRecord]:
        states = (PERSONALITY, layout.state_of(self._new, self._adapter))
        return Sides(*(measures.load(measures.persona_of(self._new, state), PersonaRecord) for state in states))

    def capability(self) -> Sides[ItemRecord]:
        return Sides([], [])

    def safe_requests(self) -> Sides[ProfileRecord]:
        return Sides([], [])

    def agent(self) -> Sides[AgentRecord]:
        return Sides([], [])


def left_behind(run: Run, bundle: Bundle) -> dict[str, str]:
    """The tasks of a bundle that cannot be trained again, by slot, and why."""
    reasons = {}
    for slot in _slots(bundle):
        try:
            tasks.check(run, Adapter(slot))
        except MoltError as error:
            reasons[slot] = error.what
    return reasons


def train_again(old: Run, new: Run, bundle: Bundle) -> list[TaskResult]:
    """Train each task of the bundle that has data above the personality on the new base, and measure it. The first that
    is lost ends it: nothing is promoted then."""
    without, results = left_behind(new, bundle), []
    for slot in _slots(bundle):
        if slot in without:
            continue
        results.append(_trained(old, new, bundle, slot))
        new.console.say(f"  {results[-1].sentence()}")
        if not results[-1].survives:
            break
    return results


def _slots(bundle: Bundle) -> list[str]:
    return [slot for slot in bundle.adapters if slot != str(PERSONALITY_ADAPTER)]


def _trained(old: Run, new: Run, bundle: Bundle, slot: str) -> TaskResult:
    adapter, former = Adapter(slot), bundle.get(slot)
    try:
        above = card.read(tasks.trained(new, adapter).folder).adapters_below
    except MoltError as error:
        return TaskResult(slot, former, LOST, {}, [error.what], {})
    evidence, settings = TaskEvidence(old, new, adapter), new.config.gate
    verdict = gate.judge([make(settings, evidence) for make in gates.TRAINED_AGAIN], settings.confidence)
    reason = ["; ".join(check.sentence for check in verdict.checks)]
    return TaskResult(slot, former, TRAINED_AGAIN if verdict.promoted else LOST, asdict(verdict), reason, above)
