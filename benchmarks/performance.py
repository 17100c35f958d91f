"""What a CPU takes for training and measuring, beside TRL and lm-evaluation-harness in the same run. Not part of the
installed package. Writes docs/results/performance.json:

    python benchmarks/performance.py                  # all, about ten minutes of one processor
    python benchmarks/performance.py dpo capability   # some; the others stay as they are in the file
    python benchmarks/performance.py avx2             # training and capability again, on a CPU that is held to AVX2

Each side is a process of its own with one thread, in fp32, on the embedded SmolLM2-135M. Seconds are those of the
processor, so that other programs disturb them little; of the steps the fastest counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "docs" / "results" / "performance.json"
STEPS, PAIRS, EXAMPLES = 3, 6, 8
LEARNING_RATE, MAX_LENGTH = 4e-4, 512
ITEMS = {"arc_easy": 16, "piqa": 16, "hellaswag": 8, "lambada": 16}
BATCH = 16
EVIDENCE_PAIRS, EVIDENCE_TOKENS = 8, 24
BUSY = "while True: pass"
CHAIN_SECONDS = 4.0
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""Keeps torch and its libraries to the instructions that most desktops have."""


@dataclass
class Clock:
    """Processor seconds of each training step, and when the work began."""

    began: float = field(default_factory=time.process_time)
    steps: list[float] = field(default_factory=list)

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class Steps(TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                self.start = time.process_time()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                clock.steps.append(time.process_time() - self.start)

        return Steps()

    def result(self, losses: list[float]) -> dict[str, Any]:
        whole = time.process_time() - self.began
        return {"step_s": min(self.steps), "whole_s": whole, "losses": losses}


def exchanges() -> list[dict[str, Any]]:
    """Prompts and answers of the shipped persona, one in twenty."""
    lines = (ROOT / "configs" / "personas" / "claudio" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if isinstance(row["prompt"], str)][::20][: STEPS * EXAMPLES]


def pairs() -> list[tuple[str, str, str]]:
    """Prompt, chosen and rejected. The rejected side is the answer to another prompt: of the same length on average."""
    rows = exchanges()[: STEPS * PAIRS]
    return [(row["prompt"], row["answer"], rows[k - 1]["answer"]) for k, row in enumerate(rows)]


def stock_arguments(folder: str, batch: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "max_steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_length": MAX_LENGTH,
        "gradient_checkpointing": False,  # TRL's default is on, which costs another forward pass
        "bf16": False,
        "use_cpu": True,
        "seed": 0,
        "data_seed": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def stock_model() -> dict[str, Any]:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(0)
    source = str(_model_folder())
    return {
        "model": AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        "processing_class": AutoTokenizer.from_pretrained(source),
        "peft_config": LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    }


def _model_folder() -> Path:
    from moltlm.data import assets

    folder = assets.model_path(assets.MODEL)
    if folder is None:
        raise SystemExit("The embedded model is missing. Fetch it: molt assets pull")
    return folder


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _losses(trainer: Any) -> list[float]:
    return [float(row["loss"]) for row in trainer.state.log_history if "loss" in row]


def dpo_stock(folder: str) -> dict[str, Any]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    clock = Clock()
    rows = [{"prompt": _ask(ask), "chosen": _answer(yes), "rejected": _answer(no)} for ask, yes, no in pairs()]
    arguments = stock_arguments(folder, PAIRS)
    settings = DPOConfig(**arguments, beta=0.1, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 1.0])
    trainer = DPOTrainer(
        args=settings, train_dataset=Dataset.from_list(rows), callbacks=[clock.callback()], **stock_model()
    )
    trainer.train()
    return clock.result(_losses(trainer))


def sft_stock(folder: str) -> dict[str, Any]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    clock = Clock()
    rows = [{"prompt": _ask(row["prompt"]), "completion": _answer(row["answer"])} for row in exchanges()]
    settings = SFTConfig(**stock_arguments(folder, EXAMPLES), completion_only_loss=True)
    trainer = SFTTrainer(
        args=settings, train_dataset=Dataset.from_list(rows), callbacks=[clock.callback()], **stock_model()
    )
    trainer.train()
    return clock.result(_losses(trainer))


def dpo(folder: str) -> dict[str, Any]:
    first = _personality(folder, "dpo", "first")
    repeated = _personality(folder, "dpo", "again")
    return {**first, "whole_with_stored_reference_s": repeated["whole_s"], "peak": _peak(), "flop": _flop("dpo")}


def sft(folder: str) -> dict[str, Any]:
    return {**_personality(folder, "sft", "first"), "peak": _peak(), "flop": _flop("sft")}


def _personality(folder: str, method: Any, name: str) -> dict[str, Any]:
    from moltlm.adapters import base, personality, training
    from moltlm.adapters.config import (
        AdaptersConfig,
        DpoConfig,
        LoraSettings,
        ModelConfig,
        PersonalityConfig,
        TrainSettings,
    )
    from moltlm.data.types import Pair

    clock, run = Clock(), training.run_training

    def timed(job: Any, trainer: Any, *others: Any) -> Any:
        trainer.add_callback(clock.callback())
        return run(job, trainer, *others)

    size = PAIRS if method == "dpo" else EXAMPLES
    settings = PersonalityConfig(steps=STEPS, batch_size=size, learning_rate=LEARNING_RATE, method=method)
    model = ModelConfig(precision="fp32", max_length=MAX_LENGTH)
    train = TrainSettings(warmup_steps=0)
    config = AdaptersConfig(model=model, lora=LoraSettings(), train=train, personality=settings, dpo=DpoConfig())
    rows = pairs() if method == "dpo" else [(row["prompt"], row["answer"], "") for row in exchanges()]
    training.run_training = timed
    try:
        job = personality.PersonalityJob(
            config=config,
            base=base.load(model),
            folder=Path(folder) / name,
            seed=0,
            pairs=[Pair(str(k), _ask(ask), yes, no) for k, (ask, yes, no) in enumerate(rows)],  # type: ignore[arg-type]
            references=Path(folder) / "references",
        )
        personality.train_personality(job)
    finally:
        training.run_training = run
    log = (Path(folder) / name / "metrics.jsonl").read_text().splitlines()
    return clock.result([json.loads(line)["loss"] for line in log])


def _peak() -> float:
    """FLOP a second of one thread in products of the shapes of the model's layers: the best of several."""
    import torch

    x, w = torch.randn(768, 576), torch.randn(1536, 576)
    seconds = []
    for _ in range(30):
        start = time.process_time()
        torch.nn.functional.linear(x, w)
        seconds.append(time.process_time() - start)
    return 2 * x.shape[0] * w.numel() / min(seconds)


def _flop(method: str) -> float:
    """Of a step, where nothing is computed twice: 4 for each frozen weight and distinct token (forward and back), 6 for
    each trained one, 4 for each weight of the head and label. Attention is left out. Mean over the data."""
    from transformers import AutoTokenizer

    from moltlm.adapters import serve
    from moltlm.data import packing

    tokenizer = AutoTokenizer.from_pretrained(str(_model_folder()))
    text = serve.TextModel(None, tokenizer)
    asks = pairs() if method == "dpo" else [(row["prompt"], row["answer"]) for row in exchanges()]
    size, tokens, labels = PAIRS if method == "dpo" else EXAMPLES, 0, 0
    for start in range(0, len(asks), size):
        sides = [(ask, answer) for ask, *answers in asks[start : start + size] for answer in answers]
        rows = text.encode([_ask(ask) for ask, _ in sides], [answer for _, answer in sides])  # type: ignore[misc]
        tokens += len(packing.pack([prompt + answer for prompt, answer in rows]).tokens)
        labels += sum(len(answer) + 2 for _, answer in rows)  # and the two that end a turn
    hidden, inner, kv, layers, vocabulary, rank = 576, 1536, 192, 30, 49152, 16
    shapes = [(hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden)]
    shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
    frozen = layers * sum(a * b for a, b in shapes)
    trained = layers * sum(rank * (a + b) for a, b in shapes)
    return (tokens * (4 * frozen + 6 * trained) + labels * 4 * hidden * vocabulary) / (len(asks) / size)


def capability(folder: str) -> dict[str, Any]:
    from moltlm.adapters import base, serve
    from moltlm.adapters.config import ModelConfig

    began = time.process_time()
    model = serve.Served(base.load(ModelConfig(precision="fp32")))
    return _measure(model, None, began)


def capability_stock(folder: str) -> dict[str, Any]:
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from moltlm.adapters.serve import TextModel

    began, source = time.process_time(), str(_model_folder())
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    return _measure(TextModel(model, AutoTokenizer.from_pretrained(source)), HFLM, began)


def _measure(model: Any, engine: Any, began: float) -> dict[str, Any]:
    from moltlm.evals import harness as measure

    result: dict[str, Any] = {"benchmarks": {}, "logprobs": [], "correct": []}
    for name, count in ITEMS.items():
        start = time.process_time()
        options = {} if engine is None else {"engine": engine}
        records = measure.evaluate(model, {name: count}, BATCH, 0, **options)
        result["benchmarks"][name] = time.process_time() - start
        result["logprobs"] += [record.logprob for record in records]
        result["correct"] += [record.correct for record in records]
    return {**result, "whole_s": time.process_time() - began}


def evidence(folder: str) -> dict[str, Any]:
    """Persona, drift and an attack over several turns, in a state with an adapter. With PERFORMANCE_PADDED nothing is
    packed: every row is padded, and computed until the last one ends, as transformers does it."""
    import torch
    from peft import LoraConfig, get_peft_model

    from moltlm.adapters import base, serve
    from moltlm.adapters.config import ModelConfig
    from moltlm.data import packing
    from moltlm.data.state import PERSONALITY
    from moltlm.data.types import Exchange, Pair
    from moltlm.evals import drift, persona, pressure
    from moltlm.evals.relevance import Questions

    if os.environ.get("PERFORMANCE_PADDED"):
        packing.possible = lambda model: False
    model = serve.Served(base.load(ModelConfig(precision="fp32")))
    torch.manual_seed(0)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model.model = get_peft_model(model.model, lora, adapter_name="personality")
    for name, weight in model.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    if hasattr(serve, "fused"):
        serve.fused.fuse(model.model)
    model.model.requires_grad_(False).eval()
    rows = [Pair(str(k), _ask(ask), yes, no, topic=str(k)) for k, (ask, yes, no) in enumerate(pairs()[:EVIDENCE_PAIRS])]  # type: ignore[arg-type]
    questions = Questions([row.question for row in rows], [row.topic for row in rows])
    measure = persona.PersonaMeasure(_NoClassifier(), 9.0, EVIDENCE_TOKENS, BATCH, questions)
    texts = {"answers": [Exchange(row.prompt, row.chosen) for row in rows]}
    attacks = pressure.attacks(rows, [], "Claudio", 1, 0)
    result: dict[str, Any] = {"seconds": {}}
    parts: dict[str, Callable[[], Any]] = {
        "persona": lambda: persona.evaluate(model, PERSONALITY, rows, measure),
        "drift": lambda: drift.evaluate(model, PERSONALITY, texts, BATCH),
        "drift of another state": lambda: drift.evaluate(model, PERSONALITY, texts, BATCH),
        "pressure": lambda: pressure.evaluate(model, PERSONALITY, attacks, {}, measure)[0],
    }
    for name, work in parts.items():
        start = time.process_time()
        records = work()
        result["seconds"][name] = time.process_time() - start
        result[name] = [getattr(record, "answer", None) or record.kl for record in records]
    return result


class _NoClassifier:
    def probability(self, texts: list[str]) -> list[float]:
        return [1.0] * len(texts)


def chain(folder: str) -> dict[str, Any]:
    """Milliseconds on the clock for a feed-forward block and a norm with two threads."""
    if os.environ.get("PERFORMANCE_MOLT"):
        import moltlm  # noqa: F401
    import torch

    torch.set_num_threads(2)
    x, up, down = torch.randn(700, 576), torch.randn(1536, 576), torch.randn(576, 1536)
    start, count = time.monotonic(), 0
    while (seconds := time.monotonic() - start) < CHAIN_SECONDS:
        y = x @ up.T
        z = (torch.nn.functional.silu(y) * y) @ down.T
        z.mul_(torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1))
        count += 1
    return {"ms": 1e3 * seconds / count}


def parts(scratch: str) -> dict[str, Any]:
    """Seconds to score 32 rows with two threads that share each operation, and in parts with a thread each: the fastest
    of three."""
    import torch

    from moltlm.adapters import base
    from moltlm.data import packing
    from moltlm.pipeline.config import load

    model = base.load(load("demo", ["model.precision=fp32"]).model).model
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, 40000, (32, 80), generator=draw).tolist()
    rows = [([*range(1000, 1030), *row[:35]], row[35:]) for row in tokens]
    seconds: dict[str, list[float]] = {"whole_s": [], "parts_s": []}
    for _ in range(3):
        for side, least in (("whole_s", len(rows)), ("parts_s", 2)):
            packing.LEAST, start = least, time.perf_counter()
            with torch.no_grad():
                packing.completion_logits(model, rows)
            seconds[side].append(time.perf_counter() - start)
    fastest = {side: min(times) for side, times in seconds.items()}
    return {**fastest, "ratio": fastest["whole_s"] / fastest["parts_s"]}


SIDES: dict[str, Callable[[str], dict[str, Any]]] = {
    "dpo": dpo,
    "dpo-stock": dpo_stock,
    "sft": sft,
    "sft-stock": sft_stock,
    "capability": capability,
    "capability-stock": capability_stock,
    "evidence": evidence,
    "chain": chain,
    "parts": parts,
}


def run(side: str, **environment: str) -> dict[str, Any]:
    """A side's result, from a process of its own."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    settings = {**os.environ, **one_thread, **environment}
    process = subprocess.run(
        [sys.executable, __file__, "--side", side], env=settings, stdout=subprocess.PIPE, check=True
    )
    return json.loads(process.stdout.decode().strip().splitlines()[-1])


def training(method: str) -> dict[str, Any]:
    stock, molt = run(f"{method}-stock"), run(method)
    share = molt.pop("flop") / molt.pop("peak")
    differences = [abs(a - b) / abs(b) for a, b in zip(molt["losses"], stock["losses"], strict=True)]
    return {
        "stock": stock,
        "moltlm": molt,
        "step_ratio": stock["step_s"] / molt["step_s"],
        "whole_ratio": stock["whole_s"] / molt["whole_s"],
        "share_of_peak": share / molt["step_s"],
        "stock_share_of_peak": share / stock["step_s"],
        "largest_relative_difference_of_losses": max(differences),
    }


def capabilities() -> dict[str, Any]:
    stock, molt = run("capability-stock"), run("capability")
    difference = max(abs(a - b) for a, b in zip(stock.pop("logprobs"), molt.pop("logprobs"), strict=True))
    changed = sum(a != b for a, b in zip(stock.pop("correct"), molt.pop("correct"), strict=True))
    ratios = {name: seconds / molt["benchmarks"][name] for name, seconds in stock["benchmarks"].items()}
    return {
        "items": ITEMS,
        "stock": stock,
        "moltlm": molt,
        "ratios": ratios,
        "whole_ratio": stock["whole_s"] / molt["whole_s"],
        "largest_difference_nats": difference,
        "items_judged_differently": changed,
    }


def evidences() -> dict[str, Any]:
    padded, packed = run("evidence", PERFORMANCE_PADDED="1"), run("evidence")
    answers = [(a, b) for part in ("persona", "pressure") for a, b in zip(padded[part], packed[part], strict=True)]
    return {
        "padded": padded["seconds"],
        "packed": packed["seconds"],
        "ratios": {name: seconds / packed["seconds"][name] for name, seconds in padded["seconds"].items()},
        "answers": len(answers),
        "answers_that_differ": sum(a != b for a, b in answers),
        "largest_difference_of_kl": max(abs(a - b) for a, b in zip(padded["drift"], packed["drift"], strict=True)),
    }


def contention() -> dict[str, Any]:
    """The chain as it is, and beside two busy processes, with the threads of moltlm and of plain torch."""
    cleared = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": "2"}  # as libgomp's default
    sides = {"moltlm": {"PERFORMANCE_MOLT": "1", "OMP_NUM_THREADS": "2"}, "torch": cleared}
    result: dict[str, Any] = {name: {"before_ms": run("chain", **changes)["ms"]} for name, changes in sides.items()}
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        for name, changes in sides.items():
            result[name]["beside_two_ms"] = run("chain", **changes)["ms"]
    finally:
        for process in busy:
            process.kill()
    for row in result.values():
        row["ratio"] = row["beside_two_ms"] / row["before_ms"]
    return result


def command_line() -> dict[str, Any]:
    seconds = []
    for _ in range(5):
        before = os.times()
        command = [sys.executable, "-m", "moltlm.pipeline.cli", "--help"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
    return {"help_s": min(seconds)}


def avx2() -> dict[str, Any]:
    os.environ.update(AVX2)
    try:
        return {"held_to": AVX2, **{name: PARTS[name]() for name in ("dpo", "sft", "capability")}}
    finally:
        for name in AVX2:
            del os.environ[name]


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "dpo": lambda: training("dpo"),
    "sft": lambda: training("sft"),
    "capability": capabilities,
    "evidence": evidences,
    "contention": contention,
    "parts": lambda: run("parts", OMP_NUM_THREADS="2", MKL_NUM_THREADS="2"),
    "command_line": command_line,
    "avx2": avx2,
}


def machine() -> dict[str, Any]:
    import torch
    import transformers
    import trl

    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown",
    )
    return {
        "cpu": cpu,
        "processors": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "load_at_the_start": os.getloadavg()[0],
    }


def main(names: list[str]) -> None:
    unknown = set(names) - set(PARTS)
    if unknown:
        raise SystemExit(f"No part {', '.join(unknown)}. There are: {', '.join(PARTS)}.")
    result = json.loads(RESULT.read_text()) if RESULT.is_file() and names else {}
    for name in names or PARTS:
        result[name] = {**PARTS[name](), "machine": machine()}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(name, json.dumps({key: value for key, value in result[name].items() if "ratio" in key or "share" in key}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(SIDES[sys.argv[2]](scratch)))
    else:
        main(sys.argv[1:])
