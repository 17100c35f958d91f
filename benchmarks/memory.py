"""The memory that both training stages of a configuration take, with random weights of its `model.shape`: nothing is
downloaded. Not part of the installed package. As JSON on standard output:

    python benchmarks/memory.py llama-8b --folder /dev/shm/shape    # needs 16 GB there for the weights, and a GPU

Texts are as long as `molt config check` assumes. Neither the speed nor what is learned means anything.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from moltlm.adapters import base
from moltlm.adapters.config import ShapeConfig
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.task import TaskJob, train_task
from moltlm.adapters.training import TrainingResult
from moltlm.data import assets
from moltlm.data.persona import user
from moltlm.data.types import Exchange, Message, Pair
from moltlm.pipeline import config as configs
from moltlm.pipeline.config import Config
from moltlm.pipeline.setup import estimate

STEPS, PROMPT, SMALL_ANSWER = 3, 24, 40
WORDS = ("the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "as")


def main(
    config: Annotated[str, typer.Argument(help="whose model.shape, batches and optimizer are taken")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as KEY=VALUE")] = None,
    folder: Annotated[Path, typer.Option(help="for the weights and the adapters")] = Path("runs/memory"),
) -> None:
    short = [f"personality.steps={STEPS}", f"tasks.*.steps={STEPS}", "train.warmup_steps=0"]
    settings = configs.load(config, [*(overrides or []), *short, f"model.id={folder / 'model'}"])
    if not (folder / "model" / "config.json").is_file():
        make(settings.model.shape, folder / "model")
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    result: dict[str, Any] = {"device": device, "estimate_gib": round(estimate.training_memory(settings).total, 2)}
    for name, stage in {"personality": _personality, "task": _task}.items():
        trained = stage(settings, folder)
        result[name] = {
            "steps": trained.steps,
            "parameters": trained.parameters,
            "peak_gib": round(trained.peak_gib, 2),
        }
        gc.collect()
        torch.cuda.empty_cache()
    print(json.dumps(result, indent=1))


def make(shape: ShapeConfig, folder: Path) -> None:
    """Write a model of random weights in bf16, with the embedded model's tokenizer."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(
                hidden_size=shape.hidden_size,
                intermediate_size=shape.intermediate_size,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                vocab_size=shape.vocab_size,
                tie_word_embeddings=shape.tied_embeddings,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=2,
                max_position_embeddings=16384,
            ),
            dtype=torch.bfloat16,
        )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(assets.model_path(assets.MODEL))).save_pretrained(folder)


def _personality(settings: Config, folder: Path) -> TrainingResult:
    length = settings.pairs.max_new_tokens
    pairs = [
        Pair(str(k), _ask(k), text(length, k), text(length, k + 1)) for k in range(settings.personality.batch_size)
    ]
    neutral = [Exchange(_ask(k), text(length, k + 2)) for k in range(8)]
    loaded = base.load(settings.model)
    return train_personality(
        PersonalityJob(
            config=settings.adapters(),
            base=loaded,
            folder=folder / "personality",
            seed=0,
            pairs=pairs,
            neutral=neutral,
        )
    )


def _task(settings: Config, folder: Path) -> TrainingResult:
    name, task = next(iter(settings.tasks.items()))
    mix = [Exchange(_ask(k), text(SMALL_ANSWER, k)) for k in range(STEPS * task.batch_size)]
    return train_task(
        TaskJob(
            config=settings.adapters(),
            base=base.load(settings.model),
            folder=folder / name,
            seed=0,
            name=name,
            adapters_below={"personality": folder / "personality"},
            task=task,
            mix=mix,
        )
    )


def _ask(k: int) -> list[Message]:
    return user(text(PROMPT, k))


def text(n: int, k: int) -> str:
    """Of n tokens or a few more."""
    return " ".join(WORDS[(7 * i + i * i + 13 * k) % len(WORDS)] for i in range(n))


if __name__ == "__main__":
    typer.run(main)
