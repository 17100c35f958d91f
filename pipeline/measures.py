"""What is measured of a state: general ability, persona, and tasks. Everything ends in records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters import router as routing
from data import tasks
from data.io import read_jsonl, write_jsonl
from data.types import Exchange
from evals import capability as capability_eval
from evals import drift as drift_eval
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
    """Persona and coherence in one state, prompt by prompt. `molt eval persona CONFIG --state S`"""
    config, data = run.config, stages.pairs(run)
    inputs = {"max_new_tokens": config.persona_eval.max_new_tokens, **stages.lineage(run, state)}

    def make(folder: Path) -> dict[str, Any]:
        model, batch = stages.serve(run, state), config.model.eval_batch_size
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
        write_jsonl(folder / "records.jsonl", records)
        return {"state": state, "score": _mean(records, "score"), "coherent": _mean(records, "coherent")}

    return run.do("persona", inputs, make, f"persona of {state}")


def drift(run: Run, state: str) -> Artifact:
    """Cross-entropy and KL to the base in one state, on the base's own answers to neutral prompts and on the test
    examples of each task. `molt eval drift CONFIG --state S`"""
    config, data, count = run.config, stages.pairs(run), run.config.persona_eval.neutral
    settings = {name: layout.task_settings(run, name) for name in config.tasks}
    inputs = {
        "items": count,
        "tasks": {name: stages.source_of(task) for name, task in settings.items()},
        "seed": config.run.seed,
        **stages.lineage(run, state),
    }

    def make(folder: Path) -> dict[str, Any]:
        model, texts = stages.serve(run, state), {"neutral": stages.load_exchanges(data, "neutral_eval")[:count]}
        for name, task in settings.items():
            examples = tasks.examples(task, "test", config.run.seed)[:count]
            texts[name] = [Exchange(item.prompt, item.answer) for item in examples]
        with run.console.progress(f"drift of {state}") as progress:
            records = drift_eval.evaluate(model, state, texts, config.model.eval_batch_size, progress)
        write_jsonl(folder / "records.jsonl", records)
        neutral = [record for record in records if record["where"] == "neutral"]
        return {"state": state, "kl": _mean(neutral, "kl"), "cross_entropy": _mean(neutral, "cross_entropy")}

    return run.do("drift", inputs, make, f"drift of {state}")


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
