"""What a state says of itself, where the persona's spec has facts about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moltlm.data.io import fingerprint
from moltlm.data.state import State
from moltlm.evals import self_facts
from moltlm.evals.records import write_records
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages import pairs, serving
from moltlm.pipeline.stages.measures import RECORDS


@once_per_config
def facts_about_itself(run: Run, state: State) -> Artifact:
    """Ask a state for the persona's facts, in several wordings. Part of `molt move CONFIG MODEL`"""
    config, facts = run.config, pairs.load_persona(run).spec.facts
    length, batch = config.persona_eval.max_new_tokens, config.model.eval_batch_size
    inputs = {
        "facts": facts,
        "wordings": fingerprint(self_facts.WORDINGS),
        "max_new_tokens": length,
        "state": serving.lineage(run, state),
    }

    def make(folder: Path) -> dict[str, Any]:
        model = serving.serve(run, state)
        with run.console.progress(f"facts of {state}") as progress:
            records = self_facts.evaluate(model, state, facts, length, batch, progress)
        write_records(folder / RECORDS, records)
        recalled = [record.recall for record in records]
        return {"state": str(state), "recall": sum(recalled) / len(recalled) if recalled else None}

    return run.do("self-facts", inputs, make, f"facts of {state}")
