"""The gate on what is served: the model behind a server, against what was trained or against the base."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moltlm.adapters.chat_template import without_thought
from moltlm.adapters.rendering import encode_prompt
from moltlm.data import endpoint
from moltlm.data.errors import MoltError
from moltlm.data.served import Server
from moltlm.data.state import BASE, State
from moltlm.data.types import Message, Pair
from moltlm.evals import gate
from moltlm.evals import persona as persona_eval
from moltlm.evals import served as served_eval
from moltlm.evals.records import AnswerRecord, ItemRecord, PersonaRecord
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import gate as gates
from moltlm.pipeline.stages import measures, pairs

Against = Literal["trained", "base"]
PROMPTS = 8
"""Held-out prompts whose tokens are compared."""
EMPTY = "an empty answer"


@dataclass(frozen=True)
class Rendering:
    """How many prompts the server renders to the tokens that the model was trained on.

    Attributes:
        same: prompts; None where the server does not say.
        of: prompts that were compared.
    """

    same: int | None
    of: int

    @property
    def differs(self) -> bool:
        return self.same is not None and self.same < self.of

    @property
    def sentence(self) -> str:
        """For a reader."""
        if self.same is None:
            return "prompts: the server does not say to which tokens it renders them"
        return f"prompts: {self.same} of {self.of} are the tokens that the model was trained on"


@dataclass(frozen=True)
class ServedVerdict:
    """The gate's verdict on what is served.

    Attributes:
        url: of the server.
        model: its name there.
        state: what was served, by the configuration.
        against: what it was compared with: the same state in process, or the base.
        rendering: of the prompts.
        capability: whether it was measured.
        verdict: of the gate, on what was measured.
    """

    url: str
    model: str
    state: str
    against: str
    rendering: Rendering
    capability: bool
    verdict: gate.GateVerdict

    @property
    def passed(self) -> bool:
        return self.verdict.promoted and not self.rendering.differs

    @property
    def has_failed(self) -> bool:
        """Whether something was shown to be lost; otherwise what did not pass is unresolved."""
        return self.rendering.differs or any(check.outcome == "fail" for check in self.verdict.checks)

    def sentences(self) -> list[str]:
        """Lines for a reader."""
        lines = [f"{self.model} at {self.url}, against {self.against}: {'passed' if self.passed else 'not passed'}"]
        lines.append(f"  {'fail' if self.rendering.differs else '':<10} {self.rendering.sentence}")
        lines += [f"  {check.outcome:<10} {check.sentence}" for check in self.verdict.checks]
        if not self.capability:
            lines.append(
                f"  {'':<10} capability: not measured, since the server gives no log-probabilities of a prompt"
            )
        return lines


@dataclass(frozen=True)
class ServedEvidence:
    """The records of a state in process (`before`), and of the model behind a server."""

    run: Run
    before: State
    skill: Literal["persona"] | None
    answers: list[AnswerRecord]
    items: list[ItemRecord]

    def persona(self) -> gates.Sides[Any]:
        records = measures.load(measures.persona_of(self.run, self.before), PersonaRecord)
        return gates.Sides(records, self.answers)

    def capability(self) -> gates.Sides[ItemRecord]:
        return gates.Sides(measures.load(measures.capability(self.run, self.before), ItemRecord), self.items)

    def task(self) -> gates.Sides[Any]:
        raise NotImplementedError("tasks are not measured through a server")

    def safe_requests(self) -> gates.Sides[Any]:
        raise NotImplementedError("refusals are not measured through a server")

    def agent(self) -> gates.Sides[Any]:
        raise NotImplementedError("agent skills are not measured through a server")


def judge(run: Run, state: State, against: Against) -> ServedVerdict:
    """Judge the model behind `served.url`. `molt gate CONFIG --served URL`

    Args:
        state: what is served there.
        against: trained: the same state in process, to which nothing may be lost; base: the base, over which the
            persona score has to be better.

    Raises:
        BadInput: the server cannot be used.
        MoltError: it left prompts unanswered.
    """
    layout.check_state(run, state)
    before = BASE if against == "base" else state
    server = Server(run.config.served)
    heldout = pairs.load_pairs(pairs.pairs(run), "heldout")
    rendering = compare_prompts(run, server, [pair.prompt for pair in heldout[:PROMPTS]])
    answers = answer(run, server, heldout)
    items = ability(run, server)
    evidence = ServedEvidence(run, before, "persona" if against == "base" else None, answers, items)
    criteria = [gates.capability] if items else []
    criteria += [gates.persona, gates.coherence, gates.new_skill]
    settings = run.config.gate
    judged = [criterion for make in criteria if (criterion := make(settings, evidence))]
    verdict = gate.judge(judged, settings.confidence)
    compared = f"{before} as trained" if before != BASE else "the base"
    return ServedVerdict(server.url, server.model, str(state), compared, rendering, bool(items), verdict)


def compare_prompts(run: Run, server: Server, prompts: list[list[Message]]) -> Rendering:
    """How the server renders prompts."""
    served = [server.prompt_tokens(prompt) for prompt in prompts]
    if any(tokens is None for tokens in served):
        return Rendering(None, len(prompts))
    trained = [encode_prompt(run.base.tokenizer, prompt) for prompt in prompts]
    return Rendering(sum(a == b for a, b in zip(trained, served, strict=True)), len(prompts))


def answer(run: Run, server: Server, heldout: list[Pair]) -> list[AnswerRecord]:
    """The server's greedy answers to the held-out prompts, scored as those in process are.

    Raises:
        MoltError: prompts were not answered.
    """
    length = run.config.persona_eval.max_new_tokens
    config, usage = run.config.served.greedy(server.model, length), endpoint.Usage()
    prompts = [pair.prompt for pair in heldout]
    # what is served under a name can change, so answers are not kept
    with tempfile.TemporaryDirectory() as folder, run.console.progress("served answers") as progress:
        replies = endpoint.connect(config, Path(folder, "answers.jsonl"), usage, progress)(prompts)
    if reasons := [reason for reason in usage.reasons if reason != EMPTY]:
        raise MoltError(
            f"{len(reasons)} of {len(prompts)} prompts were not answered: {reasons[0]}",
            "Look at the server, and repeat.",
        )
    answers = [without_thought(reply or "") for reply in replies]
    with run.console.progress("persona of what is served") as progress:
        scored = persona_eval.measure_answers(
            run.base, [pair.question for pair in heldout], answers, measures.persona_measure(run), progress, prompts
        )
    return [
        AnswerRecord(id=pair.id, answer=each.answer, score=each.score, coherent=each.coherent)
        for pair, each in zip(heldout, scored, strict=True)
    ]


def ability(run: Run, server: Server) -> list[ItemRecord]:
    """The benchmarks' items by the server's log-probabilities; none where it gives none."""
    if not server.gives_logprobs(encode_prompt(run.base.tokenizer, [{"role": "user", "content": "hello"}])):
        return []
    config = run.config.capability
    with run.console.progress("capability of what is served") as progress, run.base.state(BASE):
        return served_eval.evaluate(
            run.base, config.items, config.batch_size, run.config.run.seed, server.logprobs, progress
        )
