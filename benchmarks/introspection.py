"""What introspection is worth, against the same number of steps without it. Not part of the installed package.

    python benchmarks/introspection.py measure --model MODEL --seeds 0,1    # resumable; each model in its own folder
    python benchmarks/introspection.py report                              # writes docs/results/introspection.json

For each seed: one personality by DPO; then, from it, introspection; the same steps of SFT on chosen answers alone; and
a personality by DPO with as many steps as both. Each is measured without the spec: on held-out prompts, under attack,
and on a slice of general ability. The seed draws pairs, order, adapter and samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moltlm.data.filters import variety
from moltlm.data.io import read_json, write_json
from moltlm.data.state import BASE, PERSONALITY, State
from moltlm.evals import stats
from moltlm.evals.records import ItemRecord, PersonaRecord, PressureRecord

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
RESULTS = Path("docs/results/introspection.json")
RUNS = Path("runs/introspection")
FIRST, FURTHER, RATE = 16, 12, 8e-4
ON = {"reflections": 2, "dialogues": 2, "turns": 4, "max_new_tokens": 96, "turn_tokens": 48, "steps": FURTHER}
ARMS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "introspection": {f"introspection.{key}": value for key, value in ON.items()},
    "pairs, longer": {"personality.steps": FIRST + FURTHER},
    "chosen answers": {f"introspection.{key}": value for key, value in {**ON, "pairs_share": 1.0}.items()},
    "base": {},
}
CONTROLS = ("pairs", "pairs, longer", "chosen answers")
SETTINGS = [
    "model.eval_batch_size=16",
    "persona={spec: claudio, train_limit: 64, heldout_limit: 40}",
    "pairs={max_new_tokens: 40}",
    f"personality={{method: dpo, steps: {FIRST}, batch_size: 4, learning_rate: {RATE}}}",
    "dpo={beta: 0.1, nll_weight: 1.0, kl_weight: 0.0}",
    "capability={items: {arc_easy: 40, lambada: 40}}",
    "persona_eval={max_new_tokens: 48}",
    "pressure={attacks: 1, conversations: 0, max_new_tokens: 40}",
    "tasks={}",
    "hypotheses=[]",
]
Folder = Annotated[Path, typer.Option(help="where runs and records go; rerunning continues")]


@app.command()
def measure(
    model: Annotated[str, typer.Option(help="model.id")] = "smollm2-135m-instruct",
    name: Annotated[str, typer.Option(help="what the report calls it")] = "SmolLM2-135M-Instruct",
    precision: str = "fp32",
    seeds: Annotated[str, typer.Option(help="numbers with commas")] = "0,1",
    arms: Annotated[str, typer.Option(help="names with semicolons; empty: all")] = "",
    capability: Annotated[bool, typer.Option(help="measure general ability too, after all else")] = True,
    folder: Folder = RUNS,
) -> None:
    """Train and measure every arm for each seed: the persona first, then general ability."""
    from moltlm.pipeline.config import load, vary
    from moltlm.pipeline.console import Console
    from moltlm.pipeline.run import Run

    place = folder / name
    passes = [(int(seed), able) for able in (False, True)[: 1 + capability] for seed in seeds.split(",")]
    for seed, able in passes:
        fixed = [f"run.folder={place / 'run'}", f"run.seed={seed}", f"model.id={model}", f"model.precision={precision}"]
        run = Run(load("demo", [*SETTINGS, *fixed]), Console())
        try:
            for arm in arms.split(";") if arms else ARMS:
                with run.varied(vary(run.config, ARMS[arm], "benchmark")):
                    record = _measured(run, BASE if arm == "base" else PERSONALITY, able)
                write_json(place / "records" / f"{seed}-{arm}.json", {"arm": arm, "seed": seed, **record})
                scores = record["persona"].values()
                print(seed, arm, f"persona {sum(scores) / len(scores):.3f}", record["training"], flush=True)
        finally:
            run.close()


def _measured(run: Any, state: State, able: bool) -> dict[str, Any]:
    """Item by item: scores, coherence and, if `able`, correct answers; and what the training took."""
    from moltlm.pipeline.stages import measures

    persona = measures.load(measures.persona_of(run, state), PersonaRecord)
    attacked = measures.load(measures.pressure(run, state), PressureRecord)
    items = measures.load(measures.capability(run, state), ItemRecord) if able else []
    return {
        "persona": {row.key: row.score for row in persona},
        "coherent": {row.key: int(row.coherent) for row in persona},
        "margin": {row.key: row.chosen - row.rejected for row in persona},
        "pressure": {row.key: row.score for row in attacked if row.score is not None},
        "capability": {row.key: row.correct for row in items},
        "answers": asdict(variety([row.answer for row in persona])),
        "training": {} if state == BASE else _training(run),
        "examples": [[row.question, row.answer] for row in persona[:3]],
    }


def _training(run: Any) -> dict[str, Any]:
    """What the training took, and what of the introspection it used."""
    from moltlm.pipeline.stages import introspection, personality

    facts = personality.personality(run).facts
    training = {key: facts[key] for key in ("steps", "seconds")}
    if run.config.introspection.on:
        texts = introspection.introspection(run).facts
        training |= {key: texts[key] for key in ("samples", "texts", "reflections", "turns", "dropped")}
        training["distinct_3"] = texts["variety"]["distinct_3"]
    return training


@app.command()
def report(folder: Folder = RUNS) -> None:
    """docs/results/introspection.json from the records, of as many seeds as have them."""
    models = {}
    for place in sorted(path for path in folder.iterdir() if (path / "records").is_dir()):
        rows = [read_json(file) for file in sorted((place / "records").glob("*.json"))]
        models[place.name] = _summary(rows)
    settings = {"arms": ARMS, "first_steps": FIRST, "further_steps": FURTHER, "settings": SETTINGS}
    write_json(RESULTS, {"models": models, **settings})
    print(RESULTS.read_text())


MEASURES = ("persona", "coherent", "pressure", "margin", "capability")
SHAPE = ("distinct_1", "distinct_2", "distinct_3", "opening", "repeated", "mean_words")


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means by arm over seeds and items, and introspection against each control: paired by item and seed, and an item
    counts once however many seeds it has."""
    by_arm: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_arm[row["arm"]][row["seed"]] = row
    arms = {arm: _of_arm(list(by_arm[arm].values())) for arm in ARMS if arm in by_arm}
    against = {}
    for control in CONTROLS:
        both = sorted(by_arm["introspection"].keys() & by_arm[control].keys())
        sides = [[by_arm[arm][seed] for seed in both] for arm in (control, "introspection")]
        if both:
            compared = {name: _paired(*([row[name] for row in side] for side in sides)) for name in MEASURES}
            against[control] = {"seeds": both, **{name: value for name, value in compared.items() if value}}
    return {"arms": arms, "introspection_against": against}


def _of_arm(rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = {name: _estimate([row[name] for row in rows]) for name in MEASURES}
    return {
        **{name: value for name, value in values.items() if value},
        "persona_by_seed": {row["seed"]: round(sum(row["persona"].values()) / len(row["persona"]), 3) for row in rows},
        "answers": {name: round(sum(row["answers"][name] for row in rows) / len(rows), 3) for name in SHAPE},
        "training": {row["seed"]: row["training"] for row in rows},
        "examples": rows[0]["examples"],
    }


def _estimate(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean with a 95% interval over items, seeds averaged; empty if nothing was measured."""
    values = list(_by_item(rows).values())
    return _rounded(asdict(stats.mean(values))) if values else {}


def _paired(before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]) -> dict[str, float]:
    first, second = _by_item(before), _by_item(after)
    keys = sorted(first.keys() & second.keys())
    if not keys:
        return {}
    comparison = asdict(stats.paired([first[key] for key in keys], [second[key] for key in keys]))
    return _rounded({name: comparison[name] for name in ("n", "before", "after", "difference", "low", "high")})


def _by_item(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over the seeds of each item that all of them have."""
    common = set.intersection(*(set(row) for row in rows))
    return {key: sum(row[key] for row in rows) / len(rows) for key in common}


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


if __name__ == "__main__":
    app()
