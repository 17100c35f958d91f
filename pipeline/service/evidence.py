"""What a retraining is judged by: the personality in use, the first one and the candidate on the same items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moltlm.adapters import base
from moltlm.adapters.serve import Served
from moltlm.data import tasks
from moltlm.data.state import Adapter, State
from moltlm.data.types import Progress
from moltlm.evals import harness
from moltlm.evals import persona as persona_eval
from moltlm.evals import profile as profile_eval
from moltlm.evals import tasks as task_eval
from moltlm.evals.records import AgentRecord, ItemRecord, PersonaRecord, ProfileRecord, R, TaskRecord, write_records
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.stages import measures, pairs


def served(run: Run, adapters: dict[str, Path]) -> Served:
    """The base of the run with the adapters in these folders, by name."""
    model = Served(base.load(run.config.model))
    for name, path in adapters.items():
        model.load(name, path)
    return model


@dataclass(frozen=True)
class CycleEvidence:
    """Measures two states on the same items, each once, and writes the records into `folder`.

    Attributes:
        served: the base with the adapters of both states.
        before: the state in use, or of the first personality.
        after: the candidate.
        task_name: the task that is measured above both, if any.
        measured: records by measure and state; several comparisons may share them.
    """

    run: Run
    served: Served
    folder: Path
    before: State
    after: State
    task_name: str = ""
    measured: dict[tuple[str, State], Any] = field(default_factory=dict)

    @property
    def skill(self) -> None:
        """A candidate has only to lose nothing."""
        return None

    def persona(self) -> gates.Sides[PersonaRecord]:
        run, data = self.run, pairs.pairs(self.run)
        heldout = pairs.load_pairs(data, "heldout")
        measure = measures.persona_measure(run)
        return self._sides(
            "persona", lambda state, progress: persona_eval.evaluate(self.served, state, heldout, measure, progress)
        )

    def capability(self) -> gates.Sides[ItemRecord]:
        config = self.run.config

        def measure(state: State, progress: Progress) -> list[ItemRecord]:
            with self.served.state(state):
                return harness.evaluate(
                    self.served, config.capability.items, config.capability.batch_size, config.run.seed, progress
                )

        return self._sides("capability", measure)

    def task(self) -> gates.Sides[TaskRecord]:
        config = self.run.config
        task = layout.task_settings(self.run, Adapter(self.task_name))
        examples, size = tasks.examples(task, "test", config.run.seed), config.model.eval_batch_size

        def measure(state: State, progress: Progress) -> list[TaskRecord]:
            with self.served.state(state):
                return task_eval.evaluate(self.served, task, examples, task.max_new_tokens, size, progress)

        return self._sides(self.task_name, measure)

    def safe_requests(self) -> gates.Sides[ProfileRecord]:
        config = self.run.config
        requests = [request for request in measures.profile_material(self.run)[1] if request.safe]
        length, size = config.persona_eval.max_new_tokens, config.model.eval_batch_size
        return self._sides(
            "refusals",
            lambda state, progress: profile_eval.evaluate(self.served, state, [], requests, length, size, progress),
        )

    def agent(self) -> gates.Sides[AgentRecord]:
        if not self.run.config.agent.items:
            return gates.Sides([], [])
        return self._sides(
            "agent", lambda state, progress: measures.agent_records(self.run, self.served, state, progress)
        )

    def _sides(self, name: str, measure: Callable[[State, Progress], list[R]]) -> gates.Sides[R]:
        for state in (self.before, self.after):
            if (name, state) not in self.measured:
                with self.run.console.progress(f"{name} of {state}") as progress:
                    self.measured[name, state] = measure(state, progress)
                write_records(self.folder / f"{name}_{state}.jsonl", self.measured[name, state])
        return gates.Sides(self.measured[name, self.before], self.measured[name, self.after])
