"""What is measured of a state: general ability, persona, and tasks. Everything ends in records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters import router as routing
from data import tasks
from data.io import read_jsonl, write_jsonl
from evals import capability as capability_eval
from evals import persona as persona_eval
from evals import tasks as task_eval
from pipeline import layout, stages
from pipeline.run import Artifact, Run


def capability(run: Run, state: str) -> Artifact:
    """General ability in one state, item by item, by lm-evaluation-harness. `molt eval capability CONFIG --state S`"""
    config = run.config.capability
    inputs = {"capability": config.model_dump(), "seed": run.config.run.seed, **stages.lineage(run, state)}
    alternatives = [] if run.config.router.gated else layout.routes(state)
    parts = {name: capability(run, f"personality+{name}" if name else "personality") for name in alternatives}

    def make(folder: Path) -> dict[str, Any]:
        model = stages.serve(run, state)
        if parts:
            records = _routed_records(run, alternatives, parts)
        else:
            with run.console.progress(f"capability of {state}") as progress, model.state(state):
                batch, seed = config.batch_size, run.config.run.seed
                records = capability_eval.evaluate(model, config.items, batch, seed, progress)
        write_jsonl(folder / "records.jsonl", records)
        return {"state": state, "summary": capability_eval.summarise(records)}

    return run.do("capability", inputs, make, f"capability of {state}")


def _routed_records(run: Run, names: list[str], parts: dict[str, Artifact]) -> list[dict[str, Any]]:
    """Each item as the adapter that it is sent to answers it."""
    rows = {name: read_jsonl(part.folder / "records.jsonl") for name, part in parts.items()}
    chooser = routing.load(stages.router(run, [name for name in names if name]).folder)
    texts = {name: capability_eval.texts(name) for name in run.config.capability.items}
    asked = [texts[row["benchmark"]][row["item"]] for row in rows[routing.NOBODY]]
    sent = chooser.route(run.base.embed(asked))
    return [rows[name][place] for place, name in enumerate(sent)]


def persona_of(run: Run, state: str) -> Artifact:
    """Persona, coherence and KL to the base in one state, prompt by prompt. `molt eval persona CONFIG --state S`"""
    config, data = run.config, stages.pairs(run)
    inputs = {"persona_eval": config.persona_eval.model_dump(exclude={"samples"}), **stages.lineage(run, state)}

    def make(folder: Path) -> dict[str, Any]:
        model, batch = stages.serve(run, state), config.model.eval_batch_size
        neutral = stages.load_exchanges(data, "neutral_eval")[: config.persona_eval.neutral]
        with run.console.progress(f"persona of {state}") as progress:
            records = persona_eval.evaluate(
                model,
                state,
                stages.load_pairs(data, "heldout"),
                stages.classifier(run),
                data.facts["nll_limit"],
                config.persona_eval,
                batch,
                progress,
            )
            drift = persona_eval.drift(model, state, neutral, batch, progress)
        write_jsonl(folder / "records.jsonl", records)
        write_jsonl(folder / "drift.jsonl", drift)
        return {
            "state": state,
            "score": _mean(records, "score"),
            "coherent": _mean(records, "coherent"),
            "kl": _mean(drift, "kl"),
        }

    return run.do("persona", inputs, make, f"persona of {state}")


def task_score(run: Run, name: str, state: str) -> Artifact:
    """Exact match on the test examples of a task in one state. Part of `molt run CONFIG`."""
    config = run.config
    settings = layout.task_settings(run, name)
    inputs = {
        "examples": stages.source_of(settings),
        "metric": settings.metric,
        "seed": config.run.seed,
        **stages.lineage(run, state),
    }

    def make(folder: Path) -> dict[str, Any]:
        model = stages.serve(run, state)
        examples = tasks.examples(settings, "test", config.run.seed)
        with run.console.progress(f"{name} in {state}") as progress, model.state(state):
            records = task_eval.evaluate(
                model, settings, examples, settings.max_new_tokens, config.model.eval_batch_size, progress
            )
        write_jsonl(folder / "records.jsonl", records)
        return {"state": state, "task": name, "exact_match": _mean(records, "correct")}

    return run.do("task-score", inputs, make, f"{name} in {state}")


def _mean(records: list[dict[str, Any]], key: str) -> float:
    return sum(record[key] for record in records) / len(records)
