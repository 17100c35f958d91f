"""Made-up results with every part that a report can have, and hostile text wherever a model or a file may put it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from test_early import trainings
from test_threshold import doses

from moltlm.evals import early, knowledge, stats, threshold
from moltlm.evals.comparisons import Answer, Difference, OverSeeds, Secondary
from moltlm.evals.config import Arm
from moltlm.evals.gate import CriterionResult, GateVerdict
from moltlm.evals.judge import Agreement, JudgeSummary
from moltlm.evals.pressure import AttackSummary, FactSummary, PressureSummary, Sample, TurnSummary
from moltlm.evals.records import TaskRecord
from moltlm.evals.stats import Comparison, Estimate
from moltlm.evals.style import CrossValidation
from moltlm.evals.trajectories import Curve, Point
from moltlm.pipeline.reporting import results as model
from moltlm.pipeline.reporting.results import Results
from moltlm.pipeline.studies.verdict import Explored, GridVerdict, TuningRow

EVIL = "<script>alert(1)</script>"
STATES = {
    "base": 1,
    "personality": 34,
    "personality+reminders": 32,
    "personality+shell": 33,
    "personality+reminders-control": 12,
}
KNOWLEDGE = [
    knowledge.KnowledgeRun(rank, count, seed, 5.6 * count, 6.0 * count, cost * rank / 16 + seed / 10, 0.4)
    for rank in (4, 16)
    for seed in (0, 1)
    for count, cost in ((16, 0.5), (64, 2.0), (256, 9.0))
]
EXPLORED = Explored(early.detect(trainings("kl")), threshold.find(doses(lambda x: 8 * max(0.0, x - 1.2), seeds=4)))


def share(k: int, n: int = 40) -> Estimate:
    return stats.proportion(k, n)


def spread(mean: float, half: float, n: int = 40) -> Estimate:
    return Estimate(n, mean, mean - half, mean + half)


def items(lost: int, gained: int, n: int = 120, right: int = 40) -> Comparison:
    """A paired change in which `lost` of the right items became wrong and `gained` of the others right."""
    before = [1] * right + [0] * (n - right)
    after = [0] * lost + [1] * (right - lost + gained) + [0] * (n - right - gained)
    return stats.paired(before, after)


def state(name: str, taken: int) -> model.StateResult:
    shift = 0 if name == "base" else 3 if name == "personality" else 5
    persona = model.PersonaResult(
        n=40,
        score=spread(taken / 40, 0.08),
        taken=share(taken),
        coherent=share(38),
        echo=0.0,
        repetition=0.05,
        base_nll=spread(1.1 + shift / 4, 0.15),
        words=31.4,
        win_rate=share(min(taken + 5, 40)),
        margin=spread(taken / 30 - 1.2, 0.12),
        traits={"wry": model.TraitResult(8, spread(taken / 40, 0.2, 8), spread(0.31, 0.1, 8))},
        quartiles=[model.QuartileResult(10, 0.2 * q, spread(0.15 * q, 0.1, 10)) for q in (1, 2, 3, 4)][: shift * 2],
    )
    capability = {}
    for number, (benchmark, chance) in enumerate({"arc_easy": 0.25, "piqa": 0.5, "lambada": 0.0}.items()):
        change = items(shift + 4 * number * (shift > 3), shift and 2)
        accuracy = share(round(change.after * 120), 120)
        perplexity = 41.5 if benchmark == "lambada" else None
        capability[benchmark] = model.CapabilityResult(120, accuracy, chance, change, perplexity)
    return model.StateResult(name, persona, capability, {"neutral": drift(shift, 30), "reminders": drift(-shift, 60)})


def drift(shift: int, n: int) -> model.DriftResult:
    half = 0.02 * bool(shift)
    return model.DriftResult(
        n, spread(abs(shift) * 0.11, half, n), spread(1.2 + shift * 0.05, 0.1, n), spread(shift * 0.05, half, n)
    )


def task(name: str, control: bool) -> model.TaskResult:
    return model.TaskResult(
        name=name,
        n=60,
        floor=0.5,
        before=share(0, 60),
        after=share(49, 60),
        change=items(0, 49, 60, 0),
        control=share(52, 60) if control else None,
        examples=[TaskRecord(item=0, prompt=EVIL, answer=f"find . {EVIL}", expected="ls", correct=0)],
    )


def over_seeds(values: list[float], difference: float, half: float) -> OverSeeds:
    return OverSeeds(values, difference, difference - half, difference + half, 11.5, "items")


def comparison(better: str, than: str) -> Difference:
    return Difference(
        values=[1.0, 3.4],
        difference=2.2,
        low=-13.1,
        high=17.4,
        detectable=11.5,
        detectable_from="items",
        better=better,
        than=than,
        seeds=[1, 2],
        items=60,
        gain_levels=[0.1, 0.2],
        left_out="",
        accuracy=over_seeds([7.0, 9.0], 8.0, 31.0),
        naive=over_seeds([0.5, 1.1], 0.8, 8.0),
        sign_flip=0.5,
        mixed=spread(2.0, 3.1),
        second=over_seeds([1.6, 1.8], 1.7, 8.0),
        others=[Secondary("kl", -0.012, -0.03, 0.006, 0.31)],
        reason=f"{better} - {than}: not decided.",
    )


def verdict(id_: str, better: str, than: list[str]) -> GridVerdict:
    curves = [
        Curve(arm, seed, [point(step, place, seed) for step in (0, 4, 8)])
        for place, arm in enumerate([better, *than])
        for seed in (1, 2)
    ]
    comparisons = [comparison(better, other) for other in than]
    outcome: Answer = "inconclusive"
    return GridVerdict(
        id=id_,
        claim=f"{better} keeps more.",
        outcome=outcome,
        reasons=[f"{better} - {than[0]}: +2.2 nats of LAMBADA (-13.1 to +17.4, 2 seeds): not decided."],
        margin=0.3,
        comparisons=comparisons,
        control=replace(comparisons[0], better="kl"),
        beside=[],
        gain_levels=[0.1, 0.2],
        curves=curves,
        axis="persona",
        precision="bf16",
        arms={better: Arm(method="sft", learning_rate=8e-4)},
        tuning={better: [TuningRow(0.5, [0.1], [-4.0 - rate], [0.3], rate, 0.0, rate < 5e-4) for rate in (4e-4, 8e-4)]},
    )


def point(step: int, place: int, seed: int) -> Point:
    accuracy = 0.3 - step * 0.004 * (place + seed)
    return Point(step, step * (0.05 + 0.01 * place), accuracy, step < 8, step * 0.02 * (place + 1), -4 - step / 10)


def gate(name: str, difference: float, outcome: stats.Outcome) -> GateVerdict:
    check = CriterionResult(
        name=name,
        kind="noninferior",
        source="persona.score",
        n=40,
        difference=difference,
        low=difference - 4.4,
        high=difference + 4.4,
        margin=5.0,
        outcome=outcome,
        needed_n=90,
        sentence=f"{name}: {difference:+.1f} points (n=40), {outcome}",
    )
    return GateVerdict(outcome == "pass", [check])


def trained(name: str, **more: Any) -> model.TrainingResult:
    return model.TrainingResult(
        name=name,
        seconds=83.1,
        curve=[model.LossPoint(step, 2.4 / step + 0.3) for step in range(1, 31)],
        trainable_parameters=4884480,
        frozen_tensors_unchanged=482,
        trainable_tensors_moved=420,
        **more,
    )


def results() -> Results:
    answers = {
        name: model.SampleAnswer(f"Poke it. {EVIL}", taken / 40, taken > 5, 0.5) for name, taken in STATES.items()
    }
    protected = model.Retention(
        task="reminders",
        n=40,
        control_change=items(22, 0, 40, 34),
        replay_change=items(3, 1, 40, 34),
        retained=spread(0.91, 0.08),
        control_reached_floor=True,
        control_lost_enough=True,
    )
    return Results(
        model="smollm2-135m-instruct",
        precision="nf4",
        persona="Cláudio",
        seed=0,
        config={"run": {"folder": "runs/demo", "seed": 0}, "gate": {"confidence": 0.95}},
        environment=model.Environment("0.1.0", "3.13.1", versions={"torch": "2.9.1"}, revision="abc"),
        pairs=model.PairFacts(
            118,
            38.2,
            36.9,
            0.54,
            {"too long": 2},
            heldout=48,
            nll_limit=4.1,
            provenance={"base": 97, "given": 17, "edited": 4},
            base_answers=103,
        ),
        introspection=model.IntrospectionFacts(120, 61, 40, 21, {"incoherent": 50, "not in voice": 9}),
        classifier=model.ClassifierResult(
            CrossValidation(400, 0.93, 0.981, 0.05, 0.512),
            share(90, 96),
            model.StyleWords(["don't", "that's"], ["as an", EVIL]),
        ),
        states=[state(name, taken) for name, taken in STATES.items()],
        pressure={"personality": pressed(), "personality+shell": pressed()},
        judge=model.JudgeResult("m", {"personality": {"base": judged()}}, Agreement(50, share(45, 50), 0.77)),
        profile={"personality": {"own traits preferred": items(0, 3, 8, 4), "refused, safe": items(1, 0, 50, 2)}},
        tasks=[task("reminders", True), task("shell", False)],
        retention=[protected],
        gates={"personality": gate("capability", -0.5, "pass"), "shell": gate("persona", -4.0, "unresolved")},
        paths=[
            model.PathResult("personality", "red", "the new was learned (+82 points)"),
            model.PathResult("reminders", "red", "the new was learned and nothing was lost"),
            model.PathResult("shell", "grey", "whether persona held is not resolved with these items"),
            model.PathResult("reminders-control", "blue", "persona got worse by more than the margin"),
        ],
        samples=[model.Sample(f"Question {i}? {EVIL}", "x", answers) for i in range(5)],
        training=[
            trained("personality"),
            trained("reminders", examples=240, replayed=60),
            trained("reminders-control", examples=180, replayed=0),
        ],
        buffer=model.BufferResult(118, 0, 64, 64, 4987, "kl", 0.81, 0.62),
        explored=EXPLORED,
        knowledge=knowledge.capacities(KNOWLEDGE, 3.0),
        hypotheses=[verdict("H014", "lora", ["full"]), verdict("H015", "dpo", ["sft", "reference_free"])],
    )


def pressed() -> PressureSummary:
    sample = Sample(f"Drop it. {EVIL}", f"No. {EVIL}")
    scores = {"n": 8, "score": spread(0.61, 0.2, 8), "coherent": share(7, 8)}
    attack = AttackSummary(sample=sample, change=items(2, 0, 8, 6), plain=0.82, retained=0.74, **scores)
    return PressureSummary(
        attacks={"suffix": attack, "language": AttackSummary(8, sample, in_language=share(1, 8))},
        turns=[TurnSummary(turn=turn, **scores) for turn in (1, 2, 3)],
        slope=spread(-0.021, 0.03, 4),
        facts=FactSummary(3, 0.5, 0.25, spread(-0.25, 0.1, 4), []),
    )


def judged() -> JudgeSummary:
    return JudgeSummary(40, 1, spread(0.875, 0.1), share(5), 0.41)


def begun() -> Results:
    """What is there before the first stage."""
    full = results()
    return Results(
        full.model,
        full.precision,
        full.persona,
        full.seed,
        full.config,
        full.environment,
        missing=["pairs has not been run with these settings."],
    )
