"""How near the time that `molt estimate` says is to the time that a job takes. Not part of the installed package.
Writes docs/results/estimates.json:

    python benchmarks/estimates.py              # all jobs, some ten minutes of one processor
    python benchmarks/estimates.py smoke sft    # some; the others stay as they are in the file

Each job is a process of its own with one thread, on the embedded SmolLM2-135M. Seconds are those of the processor, of
the measurement of speed as well, so that other programs disturb them little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[1] / "docs" / "results" / "estimates.json"
SHORT = [
    "persona.train_limit=30", "persona.heldout_limit=10", "personality.steps=5", "personality.batch_size=6",
    "train.gradient_accumulation=1", "tasks.*.train=40", "tasks.*.test=8", "tasks.*.steps=4", "tasks.*.control=false",
]  # fmt: skip
JOBS = {
    "dpo": ("smoke", [*SHORT, "persona_eval.max_new_tokens=32", "pairs.max_new_tokens=32"]),
    "sft": ("smoke", [*SHORT, "personality.method=sft", "model.precision=fp32", "lora.r=32"]),
    "smoke": ("smoke", []),
}
PART_OF = {
    "first-answers": "personality",
    "persona": "evidence",
    "capability": "evidence",
    "drift": "evidence",
    "task-score": "skills",
}
"""The part that a stage belongs to, where it has another name."""


def job(name: str, folder: Path) -> dict[str, Any]:
    """Seconds of each part as they are estimated, and as they are taken."""
    from moltlm.pipeline import config as configs
    from moltlm.pipeline import job as jobs
    from moltlm.pipeline.console import Console
    from moltlm.pipeline.run import Run
    from moltlm.pipeline.setup import forecast
    from moltlm.pipeline.setup.parts import parts

    config, settings = JOBS[name]
    places = [f"run.folder={folder / 'run'}", f"registry.folder={folder / 'registry'}"]
    run = Run(configs.load(config, [*settings, *places]), Console(True))
    speed = forecast.measure(run, time.process_time)
    estimated = {part.name: speed.seconds(part.work) for part in parts(run, forecast.counter(run))}
    run.release()  # a part that loads the model begins with that
    taken = _watched()
    jobs._forecast = lambda *arguments: None  # it has been measured
    jobs.run_all(run, config)
    run.close()
    return {"estimated": estimated, "taken": dict(taken), "speed": vars(speed)}


def _watched() -> dict[str, float]:
    """Seconds of the parts, filled while stages are made."""
    from moltlm.pipeline.run import Run

    taken, make, inner = defaultdict[str, float](float), Run._make, []

    def watched(run: Run, stage: str, *arguments: Any) -> Any:
        start = time.process_time()
        inner.append(0.0)
        artifact = make(run, stage, *arguments)
        whole = time.process_time() - start
        part = stage.removeprefix("task-") if stage not in PART_OF else PART_OF[stage]
        taken[part] += whole - inner.pop()  # without the stages that were made inside it
        if inner:
            inner[-1] += whole
        return artifact

    Run._make = watched  # type: ignore[method-assign]
    return taken


def in_a_process(name: str) -> dict[str, Any]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--job", name]
    process = subprocess.run(command, env=settings, stdout=subprocess.PIPE, check=True)
    return json.loads(process.stdout.decode().strip().splitlines()[-1])


def main(names: list[str]) -> None:
    unknown = set(names) - set(JOBS)
    if unknown:
        raise SystemExit(f"No job {', '.join(unknown)}. There are: {', '.join(JOBS)}.")
    from performance import machine

    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for name in names or JOBS:
        result[name] = {**in_a_process(name), "machine": machine()}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        estimated, taken = result[name]["estimated"], result[name]["taken"]
        print(name)
        for part, seconds in {**taken, "all": sum(taken.values())}.items():
            said = sum(estimated.values()) if part == "all" else estimated.get(part, 0.0)
            print(f"  {part:18} {said:6.1f} s estimated, {seconds:6.1f} s taken, {said / seconds:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(job(sys.argv[2], Path(scratch))))
    else:
        main(sys.argv[1:])
