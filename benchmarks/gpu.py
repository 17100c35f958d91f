"""How fast a GPU trains an 8B model here, and by TRL alone: tokens a second, peak memory, and the share of the chip's
arithmetic that is used. Not part of the installed package. Nothing is downloaded: the weights are random, in the shape
of Llama 3.1 8B, NF4 with double quantisation. Writes one JSON file:

    python benchmarks/gpu.py --out gpu.json                          # a GPU of 24 GB or more, 16 GB in /dev/shm, 10 min
    python benchmarks/gpu.py --shape tiny --folder runs/gpu          # a CPU, a minute or two: that it runs

Each side and method is a process of its own. Neither the losses nor what is learned mean anything.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from memory import make, text

from moltlm.adapters.config import ModelConfig, ShapeConfig
from moltlm.data.persona import user
from moltlm.pipeline import config as configs
from moltlm.pipeline.setup import cards, estimate

LENGTHS = {"llama-8b": (512, 2048, 8192), "tiny": (64, 128, 256)}
SHAPES = {
    "llama-8b": configs.load("llama-8b").model.shape,
    "tiny": ShapeConfig(hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2, tied_embeddings=False),
}
SIDES, METHODS = ("moltlm", "trl"), ("dpo", "sft")
STEPS, RANK = 3, 64
"""Steps of each length; the first of them is not counted."""
TEMPLATE = 32
"""Tokens of the chat template around a prompt and an answer, about."""


@dataclass
class Steps:
    """Of each step: its rows and their length, seconds on the clock, and peak GiB."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    shape: tuple[int, int] = (0, 0)
    start: float = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch every training inside the `with`."""
        from transformers import Trainer

        steps, before = self, Trainer.training_step

        def training_step(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            rows, length = inputs["input_ids"].shape
            steps.shape = (rows, length)
            return before(trainer, model, inputs, *args, **kwargs)

        Trainer.training_step = training_step  # type: ignore[method-assign]
        try:
            yield
        finally:
            Trainer.training_step = before  # type: ignore[method-assign]

    def callback(self) -> Any:
        from transformers import TrainerCallback

        steps = self

        class Watch(TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                steps.start = time.monotonic()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                peak = None
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                    peak = torch.cuda.max_memory_allocated() / 2**30
                seconds = time.monotonic() - steps.start
                rows, length = steps.shape
                steps.rows.append({"rows": rows, "length": length, "seconds": seconds, "peak_gib": peak})

        return Watch()


def exchanges(shape: str) -> list[tuple[str, str, str]]:
    """A prompt and two answers for each step, of about the lengths that are measured, shortest first."""
    rows = []
    for length in LENGTHS[shape]:
        prompt = length // 4
        for k in range(STEPS):
            answer = max(4, length - prompt - TEMPLATE)
            rows.append((text(prompt, k), text(answer, k + 1), text(answer, k + 2)))
    return rows


def model_config(folder: Path, shape: str) -> ModelConfig:
    return ModelConfig(
        id=str(folder / f"model-{shape}"),
        precision="nf4",
        double_quant=True,
        compute_dtype="bfloat16",
        attention="sdpa",
        max_length=2 * LENGTHS[shape][-1],
        shape=SHAPES[shape],
    )


def by_moltlm(method: Any, shape: str, folder: Path, steps: Steps) -> None:
    from moltlm.adapters import base, personality, training
    from moltlm.adapters.config import AdaptersConfig, DpoConfig, LoraSettings, PersonalityConfig, TrainSettings
    from moltlm.data.types import Pair

    rows, run = exchanges(shape), training.run_training

    def watched(job: Any, trainer: Any, *others: Any) -> Any:
        trainer.add_callback(steps.callback())
        return run(job, trainer, *others)

    training.run_training = watched
    model = model_config(folder, shape)
    job = personality.PersonalityJob(
        config=AdaptersConfig(
            model=model,
            lora=LoraSettings(r=RANK, alpha=2 * RANK),
            train=TrainSettings(warmup_steps=0, gradient_checkpointing=True, optimizer=optimizer(), checkpoint_every=0),
            personality=PersonalityConfig(steps=len(rows), batch_size=1, learning_rate=1e-5, method=method),
            dpo=DpoConfig(kl_weight=0.0),
        ),
        base=base.load(model),
        folder=folder / f"moltlm-{method}",
        seed=0,
        pairs=[Pair(str(k), user(ask), yes, no) for k, (ask, yes, no) in enumerate(rows)],
    )
    with steps.watched():
        personality.train_personality(job)


def by_trl(method: str, shape: str, folder: Path, steps: Steps) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    source, rows = model_config(folder, shape), exchanges(shape)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    arguments: dict[str, Any] = {
        "output_dir": str(folder / f"trl-{method}"),
        "per_device_train_batch_size": 1,
        "max_steps": len(rows),
        "learning_rate": 1e-5,
        "max_length": source.max_length,
        "gradient_checkpointing": True,
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "optim": optimizer(),
        "seed": 0,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    common: dict[str, Any] = {
        "model": AutoModelForCausalLM.from_pretrained(
            source.id,
            quantization_config=quantised,
            dtype=torch.bfloat16,
            attn_implementation="sdpa",
            device_map={"": 0} if torch.cuda.is_available() else None,
        ),
        "processing_class": AutoTokenizer.from_pretrained(source.id),
        "peft_config": LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        "callbacks": [steps.callback()],
    }
    if method == "dpo":
        data = [{"prompt": user(ask), "chosen": said(yes), "rejected": said(no)} for ask, yes, no in rows]
        trainer: Any = DPOTrainer(args=DPOConfig(**arguments), train_dataset=Dataset.from_list(data), **common)
    else:
        data = [{"prompt": user(ask), "completion": said(yes)} for ask, yes, _ in rows]
        settings = SFTConfig(**arguments, completion_only_loss=True)
        trainer = SFTTrainer(args=settings, train_dataset=Dataset.from_list(data), **common)
    with steps.watched():
        trainer.train()


def said(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]


def optimizer() -> Any:
    return "paged_adamw_8bit" if torch.cuda.is_available() else "adamw_torch"


def flop(shape: ShapeConfig, tokens: int, length: int) -> float:
    """Of a step, without what checkpointing computes again: 4 for each frozen weight and token (forward, and back to
    the input), the head's among them, 6 for each trained one, and causal attention, forward once and back twice."""
    frozen = estimate.linear_parameters(shape) + shape.vocab_size * shape.hidden_size
    attention = 3 * 2 * length * shape.hidden_size * shape.layers
    return tokens * (4 * frozen + 6 * estimate.lora_parameters(shape, RANK) + attention)


def summary(rows: list[dict[str, Any]], shape: str, peak_tflops: float | None) -> list[dict[str, Any]]:
    """By length: the fastest step but the first."""
    result = []
    for length in LENGTHS[shape]:
        near = [row for row in rows if min(LENGTHS[shape], key=lambda other: abs(other - row["length"])) == length][1:]
        if not near:
            result.append({"length": length, "measured": False})
            continue
        best = min(near, key=lambda row: row["seconds"])
        tokens = best["rows"] * best["length"]
        rate = flop(SHAPES[shape], tokens, best["length"]) / best["seconds"]
        peaks = [row["peak_gib"] for row in near if row["peak_gib"] is not None]
        result.append(
            {
                "length": length,
                "measured": True,
                "tokens": tokens,
                "seconds": best["seconds"],
                "tokens_per_second": tokens / best["seconds"],
                "peak_gib": max(peaks) if peaks else None,
                "tflops": rate / 1e12,
                "utilisation": rate / 1e12 / peak_tflops if peak_tflops else None,
            }
        )
    return result


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or "cpu"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")}
    card = cards.of_device(device)
    peak = card.tflops if card else None
    return {"device": device, "gib": memory, "peak_tflops": peak, "cuda": torch.version.cuda, "versions": versions}


def one(side: str, method: str, shape: str, folder: Path) -> dict[str, Any]:
    """One side and method, in this process. What ran out of memory leaves the steps before it."""
    steps, work, error = Steps(), {"moltlm": by_moltlm, "trl": by_trl}[side], None
    began = time.monotonic()
    try:
        work(method, shape, folder, steps)
    except torch.cuda.OutOfMemoryError as problem:
        error = f"out of memory: {str(problem).splitlines()[0]}"
    return {"steps": steps.rows, "whole_s": time.monotonic() - began, "error": error}


def in_a_process(side: str, method: str, shape: str, folder: Path, seconds: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--shape", shape, "--folder", str(folder), "--only", f"{side} {method}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return {"steps": [], "error": "the time was up"}
    if process.returncode:
        return {"steps": [], "error": f"exit status {process.returncode}; see above"}
    return json.loads(process.stdout.decode().strip().splitlines()[-1])


def main(
    shape: Annotated[str, typer.Option(help="llama-8b, or tiny for a CPU")] = "llama-8b",
    folder: Annotated[Path, typer.Option(help="for the weights and the adapters")] = Path("/dev/shm/moltlm-gpu"),
    out: Annotated[Path, typer.Option(help="the records")] = Path("gpu.json"),
    minutes: Annotated[float, typer.Option(help="after which nothing more is begun, and what runs is ended")] = 10.0,
    only: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    if shape not in SHAPES:
        raise typer.BadParameter(f"There is no shape {shape}: {', '.join(SHAPES)}.")
    if only:
        side, method = only.split()
        print(json.dumps(one(side, method, shape, folder)))
        return
    if shape == "llama-8b" and not torch.cuda.is_available():
        raise typer.BadParameter("llama-8b needs a GPU. On a CPU: --shape tiny --folder runs/gpu")
    end, device = time.monotonic() + 60 * minutes, machine()
    if not (folder / f"model-{shape}" / "config.json").is_file():
        make(SHAPES[shape], folder / f"model-{shape}")
    result: dict[str, Any] = {"machine": device, "shape": shape, "results": {}}
    for method in METHODS:
        for side in SIDES:
            outcome = in_a_process(side, method, shape, folder, end - time.monotonic())
            rows = summary(outcome["steps"], shape, device["peak_tflops"])
            result["results"][f"{method} {side}"] = {**outcome, "lengths": rows}
            out.write_text(json.dumps(result, indent=1) + "\n")
            _show(f"{method} {side}", outcome, rows)
    print(f"written: {out}")


def _show(name: str, outcome: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    print(name, f"({outcome['error']})" if outcome["error"] else "")
    for row in rows:
        if not row["measured"]:
            print(f"  {row['length']:5} tokens: not measured")
            continue
        share = f", {row['utilisation']:.0%} of the peak" if row["utilisation"] else ""
        peak = f", {row['peak_gib']:.1f} GiB" if row["peak_gib"] else ""
        print(f"  {row['length']:5} tokens: {row['tokens_per_second']:,.0f} tokens/s{peak}{share}")


if __name__ == "__main__":
    typer.run(main)
