"""What selecting the replay buffer is worth, and how it scales. Not part of the installed package.

    python benchmarks/replay.py quality --folder runs/benchmark    # about an hour and a half on two cores; resumable
    python benchmarks/replay.py scale                              # about six minutes on one core
    python benchmarks/replay.py report                             # writes docs/results/replay.json and .md, seconds

quality: one personality on SmolLM2-135M; then, for every selector, share of replay in the mix and seed, a task is
trained above it with a buffer of exactly the tokens that this share replays, and what is left of the personality is
measured on the held-out prompts. Seeds draw the task's examples, their order, the adapter's start and the choice.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from moltlm.data import coherence, replay, tasks
from moltlm.data import state as states
from moltlm.data.config import ReplayConfig, TaskConfig
from moltlm.data.io import batches, write_json, write_text
from moltlm.data.mix import mix
from moltlm.data.state import BASE, PERSONALITY, State
from moltlm.data.types import Exchange

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
RESULTS = Path("docs/results")
RATIOS = (0.01, 0.05, 0.10)
SEEDS = (0, 1, 2)
ARMS = {
    "combined (KL)": {"select": "combined"},
    "importance (KL)": {"select": "importance"},
    "importance (margin)": {"select": "importance", "importance": "margin"},
    "importance (gradient)": {"select": "importance", "importance": "gradient"},
    "facility location": {"select": "facility_location"},
    "k-center": {"select": "k_center"},
    "herding": {"select": "herding"},
    "uniform": {"select": "uniform"},
    "reservoir": {"select": "reservoir"},
    "recency": {"select": "recency"},
}
KINDS = ("kl", "margin", "gradient")
TASK = TaskConfig(kind="reminders", train=240, test=40, steps=20, batch_size=8, learning_rate=5e-4, replay_ratio=0.0)
PROMPTS = 48
WRITTEN = 16
TOKENS = 32
Folder = Annotated[Path, typer.Option(help="where runs and records go; rerunning continues")]
RUNS = Path("runs/benchmark")
MEANS = ("retained", "score", "task", "exchanges", "topics")
TIMED = ("facility_location", "combined", "k_center", "herding")


@app.command()
def quality(
    folder: Folder = RUNS,
    part: Annotated[str, typer.Option(help="I/N: of N processes, do the share of number I, from 0")] = "0/1",
) -> None:
    """Persona retention for every selector, share and seed."""
    from moltlm.pipeline.config import load
    from moltlm.pipeline.console import Console
    from moltlm.pipeline.run import Run
    from moltlm.pipeline.stages import pairs

    index, count = map(int, part.split("/"))
    config = load(
        "demo",
        [
            f"run.folder={folder}/run-{index}",
            "model.precision=bf16",
            "persona.heldout_limit=null",
            "hypotheses=[]",
            "personality.steps=60",
        ],
    )
    run = Run(config, Console())
    try:
        heldout = spaced(pairs.load_pairs(pairs.pairs(run), "heldout"), PROMPTS)
        judge = Judge(run, heldout)
        candidates = pool(run, folder)
        jobs = [("none", 0.0, seed) for seed in SEEDS]
        jobs += [(arm, ratio, seed) for seed in SEEDS for ratio in RATIOS for arm in ARMS]
        for place, (arm, ratio, seed) in enumerate(jobs):
            record = folder / "records" / f"{arm.replace(' ', '-')}_{ratio:.2f}_{seed}.json"
            if place % count == index and not record.is_file():
                start = time.monotonic()
                trial = Trial(arm, ratio, seed, folder / f"adapter-{index}")
                values = train_and_measure(run, judge, candidates, trial)
                seconds = time.monotonic() - start
                write_json(record, {"arm": arm, "ratio": ratio, "seed": seed, **values, "seconds": seconds})
                numbers = {key: round(value, 3) for key, value in values.items() if isinstance(value, float)}
                print(arm, ratio, seed, numbers, flush=True)
    finally:
        run.close()


@dataclass(frozen=True)
class Candidates:
    """The training exchanges in the order of the file, topic after topic: with each kind of importance, and their
    embeddings (n, dimensions)."""

    by_importance: dict[str, list[replay.Candidate]]
    embeddings: np.ndarray


@dataclass(frozen=True)
class Trial:
    """One training: a selector, the share of replay in the mix, a seed, and a folder for the adapter."""

    arm: str
    ratio: float
    seed: int
    folder: Path


def pool(run: Any, folder: Path) -> Candidates:
    """Measure the importance of the training exchanges, once for all trainings."""
    from moltlm.pipeline.stages import buffer, pairs, serving

    file = folder / "importance.json"
    model = serving.serve(run, PERSONALITY)
    rows = pairs.load_pairs(pairs.pairs(run), "train")
    exchanges = [Exchange(pair.prompt, pair.chosen, pair.topic, pair.trait) for pair in rows]
    if not file.is_file():
        values = {}
        for kind in KINDS:
            with run.console.progress(f"importance by {kind}") as progress:
                offered, _, _ = buffer.offer(model, exchanges, ReplayConfig(importance=kind), 32, progress)
            values[kind] = [candidate.importance for candidate in offered]
        write_json(file, {**values, "tokens": [candidate.tokens for candidate in offered]})
    stored = json.loads(file.read_text())
    by_importance = {
        kind: [replay.Candidate(*row) for row in zip(exchanges, stored[kind], stored["tokens"], strict=True)]
        for kind in KINDS
    }
    return Candidates(by_importance, model.embed([f"{item.question}\n{item.answer}" for item in exchanges]))


def train_and_measure(run: Any, judge: Judge, candidates: Candidates, trial: Trial) -> dict[str, Any]:
    """Train the task with the buffer that the trial's selector chooses, and measure what is left."""
    from moltlm.adapters import base
    from moltlm.adapters.task import TaskJob, train_task
    from moltlm.pipeline.stages import personality

    task = TASK.model_copy(update={"replay_ratio": trial.ratio})
    selected: list[Exchange] = []
    if trial.ratio:
        settings = {"importance": "kl", **ARMS[trial.arm]}
        rows = candidates.by_importance[settings["importance"]]
        budget = round(task.replayed * float(np.mean([row.tokens for row in rows])))
        config = ReplayConfig.model_validate({**settings, "budget_tokens": budget})
        selected = replay.build(rows, candidates.embeddings, config, trial.seed).exchanges
    examples = tasks.examples(task, "train", trial.seed)
    new_exchanges = [Exchange(item.prompt, item.answer, source="task") for item in examples]
    shutil.rmtree(trial.folder, ignore_errors=True)
    train_task(
        TaskJob(
            config=run.config.adapters(),
            base=base.load(run.config.model),
            folder=trial.folder,
            seed=trial.seed,
            name="task",
            adapters_below={"personality": personality.personality(run).folder},
            task=task,
            mix=mix(new_exchanges, selected, task.steps, task.batch_size, task.replayed, trial.seed),
        )
    )
    counts = {"exchanges": len(selected), "topics": len({item.topic for item in selected})}
    return {**counts, **judge(trial.folder, task, trial.seed)}


class Judge:
    """What is left of the personality, and what was learned, in the state `personality+task`."""

    def __init__(self, run: Any, heldout: list[Any]) -> None:
        from moltlm.pipeline.stages import pairs, serving

        self.heldout = heldout
        self.model = serving.serve(run, PERSONALITY)
        self.classifier = pairs.style_classifier(run)
        self.limit = pairs.pairs(run).facts["nll_limit"]
        self.start = {state: self.margins(state) for state in (BASE, PERSONALITY)}

    def margins(self, state: State) -> np.ndarray:
        """Log-likelihood of the hand-written answers, nats a token, prompt by prompt."""
        prompts, answers = [pair.prompt for pair in self.heldout], [pair.chosen for pair in self.heldout]
        with self.model.state(state):
            return np.array([score.per_token for score in self.model.score(prompts, answers, 16)])

    def __call__(self, folder: Path, task: TaskConfig, seed: int) -> dict[str, Any]:
        model, state = self.model, states.of("personality", "task")
        model.load("task", folder)
        try:
            return self._measure(model, state, task, seed)
        finally:
            model.model.delete_adapter("task")

    def _measure(self, model: Any, state: State, task: TaskConfig, seed: int) -> dict[str, Any]:
        now = self.margins(state)
        gain = self.start[PERSONALITY] - self.start[BASE]
        written = spaced(self.heldout, WRITTEN)
        with model.state(state):
            answers = model.generate([pair.prompt for pair in written], TOKENS, 32)
            test = tasks.examples(task, "test", seed)
            learned = greedily_right(model, test)
        with model.state(BASE):
            under_base = model.score([pair.prompt for pair in written], answers, 32)
        scores = [
            p * coherence.check(pair.question, answer, -nll.per_token, self.limit).coherent
            for p, pair, answer, nll in zip(
                self.classifier.probability(answers), written, answers, under_base, strict=True
            )
        ]
        return {
            "retained": float((now - self.start[BASE]).mean() / gain.mean()),
            "score": float(np.mean(scores)),
            "task": learned,
            "kept_gain": [round(float(x), 4) for x in now - self.start[BASE]],
            "gain": [round(float(x), 4) for x in gain],
        }


def spaced(rows: list[Any], n: int) -> list[Any]:
    """`n` of them at even distances, so from all topics."""
    return [rows[place * len(rows) // n] for place in range(n)] if n < len(rows) else rows


def greedily_right(model: Any, examples: list[Any]) -> float:
    """Share of the answers of which every token, and the end of the turn, is the likeliest: what greedy decoding would
    have written, from one forward pass."""
    import torch

    end = model.tokenizer.eos_token_id
    rows = model.encode([item.prompt for item in examples], [item.answer for item in examples])
    right = []
    with torch.no_grad():
        for group in batches([(prompt, [*answer, end]) for prompt, answer in rows], 16):
            for logits, (_, answer) in zip(model.completion_logits(group), group, strict=True):
                right.append(logits.argmax(-1).tolist() == answer)
    return float(np.mean(right))


@app.command("scale")
def scale_curve(
    folder: Folder = RUNS, sizes: Annotated[str, typer.Option(help="numbers of candidates")] = "2e3,1e4,5e4,2e5,1e6"
) -> None:
    """Time, memory and value of the choice: 200 of n vectors of 256 dimensions, each in a process on one core."""
    one_core = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for kind in ("clustered", "isotropic"):
        for n in (int(float(size)) for size in sizes.split(",")):
            record = folder / "scale" / f"{kind}_{n}.json"
            if not record.is_file():
                command = [sys.executable, str(Path(__file__).with_name("scale.py")), kind, str(n)]
                point = subprocess.run(
                    command, env={**os.environ, **one_core}, check=True, capture_output=True, text=True
                ).stdout
                write_text(record, point)
                print(point, flush=True)


@app.command()
def report(folder: Folder = RUNS) -> None:
    """docs/results/replay.json and replay.md from the records; without any, from the means of seeds in replay.json."""
    files = sorted((folder / "records").glob("*.json"))
    if files:
        rows = summary([json.loads(file.read_text()) for file in files])
        curve = [json.loads(file.read_text()) for file in sorted((folder / "scale").glob("*.json"))]
    else:
        committed = json.loads((RESULTS / "replay.json").read_text())
        rows, curve = committed["quality"], committed["scale"]
    curve.sort(key=lambda row: (row["kind"], row["n"]))
    rows = compared(rows)
    write_json(RESULTS / "replay.json", {"quality": rows, "scale": curve, "ratios": RATIOS})
    write_text(RESULTS / "replay.md", text(rows, curve))
    print((RESULTS / "replay.md").read_text())


def summary(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an arm and share, with means over seeds; `seeds` are the shares retained, in the order of the seeds."""
    grouped = defaultdict(list)
    for record in records:
        grouped[record["arm"], record["ratio"]].append(record)
    rows = []
    for (arm, ratio), group in grouped.items():
        means = {key: round(float(np.mean([record[key] for record in group])), 4) for key in MEANS}
        by_seed = [round(record["retained"], 4) for record in sorted(group, key=lambda record: record["seed"])]
        rows.append({"arm": arm, "ratio": ratio, "seeds": by_seed, **means})
    return sorted(rows, key=lambda row: (row["ratio"], -row["retained"]))


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `against_uniform`: the difference in what is retained, paired by seed, with Student's interval over
    seeds. The seed is the unit, since it draws the task, the order, the adapter and the choice; the prompts, which all
    seeds share, say nothing of how the next training would come out. Cells with fewer seeds have no comparison."""
    from moltlm.evals import stats

    uniform = {row["ratio"]: row["seeds"] for row in rows if row["arm"] == "uniform"}
    paired = []
    for row in rows:
        row = {key: value for key, value in row.items() if key != "against_uniform"}
        plain = uniform.get(row["ratio"], [])
        if row["arm"] != "uniform" and len(plain) == len(row["seeds"]) > 1:
            differences = [one - other for one, other in zip(row["seeds"], plain, strict=True)]
            estimate = stats.seed_difference(differences)
            row["against_uniform"] = {
                "difference": round(estimate.mean, 4),
                "low": round(estimate.low, 4),
                "high": round(estimate.high, 4),
                "seeds": estimate.n,
            }
        paired.append(row)
    return paired


def text(rows: list[dict[str, Any]], curve: list[dict[str, Any]]) -> str:
    lines = [
        "# What choosing the replay buffer is worth",
        "",
        f"SmolLM2-135M (bf16), Cláudio, one personality; task `{TASK.kind}`, {TASK.steps} steps of {TASK.batch_size};",
        "a seed draws task, order, adapter and choice. Retained: the mean gain in log-likelihood over the",
        "base, on the held-out hand-written answers, that is left after the task, as a share of the personality's.",
        f"Score: taken for Cláudio and coherent, {WRITTEN} written answers a seed. Intervals of 95% over seeds, paired",
        f"by seed: {_excluding(rows)}; three seeds decide little.",
        "Made by `python benchmarks/replay.py report`; cells with fewer seeds, or missing, are unfinished, and",
        "`quality` goes on with them.",
        "",
        "| replay | selector | exchanges | topics | retained % | by seed | against uniform, points | score | task |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_quality_row, rows),
        "",
        "# How the choice scales",
        "",
        "200 of n vectors of 256 dimensions, one core. Value: mean similarity to the nearest of the chosen. Share of",
        "the gain: of what the reference has over a random choice.",
        "",
        "| vectors | n | coverage s | combined s | k-center s | herding s | GiB beyond the vectors | value | random "
        "| reference | share of its value | of its gain |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *map(_scale_row, curve),
    ]
    return "\n".join(lines) + "\n"


def _excluding(rows: list[dict[str, Any]]) -> str:
    """How many comparisons with uniform have an interval that excludes zero."""
    intervals = [row["against_uniform"] for row in rows if "against_uniform" in row]
    below, above = sum(one["high"] < 0 for one in intervals), sum(one["low"] > 0 for one in intervals)
    return f"{below} of {len(intervals)} are below zero, {above} above"


def _quality_row(row: dict[str, Any]) -> str:
    against = ""
    if other := row.get("against_uniform"):
        against = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * other[key] for key in ("difference", "low", "high")))
    cells = [
        f"{row['ratio']:.0%}",
        row["arm"],
        f"{row['exchanges']:.0f}",
        f"{row['topics']:.0f}",
        f"{100 * row['retained']:.1f}",
        " ".join(f"{100 * value:.0f}" for value in row["seeds"]),
        against,
        f"{row['score']:.2f}",
        f"{row['task']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _scale_row(row: dict[str, Any]) -> str:
    reference = ""
    if "reference" in row:
        reference = f"{row['reference']} {row['reference_value']} ({row['reference_seconds']} s)"
    cells = [
        row["kind"],
        f"{row['n']:,}",
        *(row["seconds"][key] for key in TIMED),
        row["peak_gib_beyond_vectors"],
        row["value"]["facility_location"],
        row["random"],
        reference,
        row.get("share_of_value", ""),
        row.get("share_of_gain", ""),
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    app()
