"""Every stage on a tiny model of each family of architectures, compared with what transformers itself computes.

`python benchmarks/families.py measure [FAMILY ...]` makes models of random weights (no download), puts them through the
stages, in fp32 and NF4, and writes docs/results/families.json; `python benchmarks/families.py report` writes the table
beside it. A cell says ok, or refused with the reason; "wrong" marks what would otherwise be a silent error.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from moltlm.adapters import base, export, serve, targets
from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    TrainSettings,
)
from moltlm.adapters.personality import PersonalityJob, train_personality
from moltlm.adapters.rendering import encode_prompt
from moltlm.adapters.task import TaskJob, train_task
from moltlm.data import state as states
from moltlm.data.config import TaskConfig
from moltlm.data.errors import MoltError
from moltlm.data.io import write_json, write_text
from moltlm.data.persona import user
from moltlm.data.state import BASE
from moltlm.data.types import Exchange, Pair

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
STAGES = ("load", "score", "generate", "personality", "task", "serve", "adapter", "stacked", "merged")
END, PAD = "<|im_end|>", "<|endoftext|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
}
HEAD: dict[str, Any] = {"head_dim": 16}
LAYERS: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT: dict[str, Any] = {
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
}
MAMBA: dict[str, Any] = {"mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16, "mamba_n_heads": 8}
MAMBA_FIRST = {"layer_types": ["mamba", "attention"]}
ATTENTION_SECOND = {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "image_size": 28,
    "patch_size": 14,
    "depth": 2,
    "num_heads": 2,
    "out_hidden_size": 64,
    "embed_dim": 32,
    "fullatt_block_indexes": [1],
    "deepstack_visual_indexes": [0],
    "num_position_embeddings": 4,
}
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}


@dataclass(frozen=True)
class Family:
    """A model type of transformers, and what its configuration has beside SHAPE.

    Attributes:
        is_wrapper: whether it has towers around a text model, which `settings` are for.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    is_wrapper: bool = False


DENSE = [
    *(Family(kind) for kind in ("llama", "mistral", "qwen2", "phi", "phi3", "olmo2", "smollm3", "starcoder2")),
    *(Family(kind) for kind in ("cohere", "granite", "exaone4", "gpt_neox", "falcon", "stablelm", "bloom")),
    *(Family(kind, HEAD) for kind in ("qwen3", "gemma", "glm4", "seed_oss")),
    *(Family(kind, {**HEAD, **LAYERS}) for kind in ("gemma2", "gemma3_text", "gemma4_text", "cohere2", "olmo3")),
    Family("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}),
]
MIXTURES = [
    *(Family(kind, {**EXPERTS, **HEAD}) for kind in ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe")),
    *(Family(kind, {**EXPERTS, **HEAD}) for kind in ("gpt_oss", "glm4_moe", "llama4_text")),
    *(Family(kind, {**EXPERTS, **LATENT, "q_lora_rank": 16}) for kind in ("deepseek_v2", "deepseek_v3")),
]
HYBRIDS = [
    Family("qwen3_next", {**EXPERTS, **HEAD, **LINEAR}),
    Family("qwen3_5_text", {**HEAD, **LINEAR}),
    Family("lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16}),
    Family("falcon_h1", {**MAMBA, **HEAD, "mamba_d_ssm": 64, "mamba_n_heads": 4}),
    Family("bamba", {**MAMBA, "attn_layer_indices": [1]}),
    Family("granitemoehybrid", {**MAMBA, **MAMBA_FIRST, "num_local_experts": 0, "shared_intermediate_size": 64}),
    Family("jamba", {"num_experts": 4, "mamba_d_state": 8, "mamba_dt_rank": 4, **ATTENTION_SECOND}),
    Family("mamba", {"state_size": 8}),
    Family("rwkv"),
]
WRAPPERS = [
    *(Family(kind, HEAD, True) for kind in ("gemma3",)),
    Family("gemma4", {**HEAD, **LAYERS}, True),
    Family("llama4", {**EXPERTS, **HEAD}, True),
    Family("qwen3_5", {**HEAD, **LINEAR}, True),
    *(Family(kind, SECTIONS, True) for kind in ("qwen2_vl", "qwen2_5_vl")),
    *(Family(kind, {**SECTIONS, **HEAD}, True) for kind in ("qwen3_vl",)),
    *(Family(kind, {}, True) for kind in ("llava", "idefics3", "smolvlm", "mistral3", "internvl")),
]
FAMILIES = {family.kind: family for family in [*DENSE, *MIXTURES, *HYBRIDS, *WRAPPERS]}
PAIRS = [
    Pair(str(i), user(f"hello, what should i do?{' please' * i}"), f"Open drawer {i}. Empty it.", f"I am glad {i}")
    for i in range(8)
]
NEUTRAL = [Exchange(user("what is rain?"), "Rain is water."), Exchange(user("what is tea?"), "Tea is a drink.")]
MIX = [Exchange(user(f"list files {i}"), "ls") for i in range(16)]


def build(family: Family, folder: Path) -> None:
    """Write a model of random weights with a tokenizer and ChatML."""
    tokenizer = _tokenizer(folder)
    torch.manual_seed(0)
    kind: Any = transformers.CONFIG_MAPPING[family.kind]
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    settings = {**SHAPE, "vocab_size": len(tokenizer), **ends, **family.settings}
    if family.is_wrapper:
        default = kind()
        towers = type(default.vision_config) if default.vision_config else kind.sub_configs["vision_config"]
        text = type(default.get_text_config())(**settings)
        config = kind(text_config=text, vision_config=towers(**VISION))
        for name, value in ends.items():
            setattr(config, name, value)
        model = transformers.AutoModelForImageTextToText.from_config(config)
    else:
        model = transformers.AutoModelForCausalLM.from_config(kind(**settings))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
    model.generation_config = transformers.GenerationConfig(**ends)
    model.save_pretrained(folder)


def _tokenizer(folder: Path) -> Any:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[PAD, "<|im_start|>", END], initial_alphabet=alphabet)
    raw.train_from_iterator(["hello what should i do today rain tea drawer please list files"], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END, pad_token=PAD, chat_template=CHATML
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


class Stages:
    """The stages on one model. Each returns what is worth saying, and raises `Wrong` where its result is not right."""

    def __init__(self, model: Path, precision: str, work: Path) -> None:
        self.config = AdaptersConfig(
            model=ModelConfig.model_validate({"id": str(model), "precision": precision}),
            lora=LoraSettings(r=4, alpha=8),
            train=TrainSettings(warmup_steps=0),
            personality=PersonalityConfig(steps=3, batch_size=4, learning_rate=5e-3),
            dpo=DpoConfig(nll_weight=0.0, kl_weight=0.1),
        )
        self.folders = [work / "personality", work / "task"]
        self.work = work

    def load(self) -> str:
        """The class, and what all-linear leaves alone."""
        model = base.load(self.config.model).model
        alone = targets.left_out(model)
        return f"{type(model).__name__}" + (f"; no LoRA on {', '.join(alone)}" if alone else "")

    def score(self) -> str:
        """Log-probabilities of answers against a plain forward pass over each row."""
        loaded = base.load(self.config.model)
        text = serve.TextModel(loaded.model, loaded.tokenizer)
        prompts, answers = [pair.prompt for pair in PAIRS[:3]], [pair.chosen for pair in PAIRS[:3]]
        rows, scores = text.encode(prompts, answers), text.score(prompts, answers, 2)
        for (prompt, answer), score in zip(rows, scores, strict=True):
            logits = loaded.model(input_ids=torch.tensor([prompt + answer])).logits[0].float().log_softmax(-1)
            plain = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)) / len(answer)
            _expect(abs(score.per_token - plain) < 2e-3, f"{score.per_token:.4f} and not {plain:.4f} nats a token")
        return ""

    def generate(self) -> str:
        """Each token of a padded batch of greedy answers is the likeliest by a plain forward pass, but for rounding."""
        loaded = base.load(self.config.model)
        text = Recorder(loaded.model, loaded.tokenizer)
        rows = sorted((encode_prompt(loaded.tokenizer, pair.prompt) for pair in PAIRS[:3]), key=len)
        text.generate([pair.prompt for pair in PAIRS[:3]], 8, 3)
        rounding = 1e-3 if self.config.model.precision == "fp32" else 0.1
        for prompt, answer in zip(rows, text.written, strict=True):
            logits = loaded.model(input_ids=torch.tensor([prompt + answer])).logits[0].float()
            for step, token in enumerate(answer):
                row = logits[len(prompt) - 1 + step]
                behind = float((row.max() - row[token]) / row.std())
                _expect(behind < rounding, f"token {step} is {behind:.2f} deviations behind the likeliest")
        return ""

    def personality(self) -> str:
        """DPO begins at log 2, so its reference is the model itself; all of the adapter moves."""
        job = PersonalityJob(
            config=self.config,
            base=base.load(self.config.model),
            folder=self.folders[0],
            seed=0,
            pairs=PAIRS,
            neutral=NEUTRAL,
        )
        count = train_personality(job).changed_tensors
        first = json.loads((self.folders[0] / "metrics.jsonl").read_text().splitlines()[0])["loss"]
        _expect(abs(first - math.log(2)) < 2e-3, f"a first loss of {first:.4f}, not log 2")
        return f"{count} tensors"

    def task(self) -> str:
        """Above the personality, which stays as it is."""
        train_task(
            TaskJob(
                config=self.config,
                base=base.load(self.config.model),
                folder=self.folders[1],
                seed=0,
                name="shell",
                adapters_below={"personality": self.folders[0]},
                task=TaskConfig(kind="shell", steps=3, learning_rate=5e-3),
                mix=MIX,
            )
        )
        return ""

    def serve(self) -> str:
        """The stack is active when it is served."""
        served = serve.Served(base.load(self.config.model))
        for name, folder in zip(("personality", "shell"), self.folders, strict=True):
            served.load(name, folder)
        with served.state(states.of("personality", "shell")):
            kl = sum(served.kl_from(BASE, [row.prompt for row in NEUTRAL], [row.answer for row in NEUTRAL], 2))
        _expect(kl > 1e-6, "the adapters change nothing")
        return ""

    def adapter(self) -> str:
        return self._exported(1, lambda out: export.adapter(self.config.model, self.folders[:1], out))

    def stacked(self) -> str:
        return self._exported(2, lambda out: export.adapter(self.config.model, self.folders, out))

    def merged(self) -> str:
        return self._exported(2, lambda out: export.merged(self.config.model, self.folders, out))

    def _exported(self, count: int, write: Callable[[Path], Any]) -> str:
        """Loaded again and compared with what was trained."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            out = Path(folder) / "out"
            write(out)
            prompts, answers = [pair.prompt for pair in PAIRS[:3]], [pair.chosen for pair in PAIRS[:3]]
            return f"KL {export.check(self.config.model, self.folders[:count], out, prompts, answers).kl:.5f}"


class Recorder(serve.TextModel):
    """A model that keeps the tokens of its answers, up to their end, in the order of its batches."""

    def decoded(self, tokens: torch.Tensor) -> list[str]:
        end = self.tokenizer.eos_token_id
        self.written = [row[: row.index(end)] if end in row else row for row in tokens.tolist()]
        return super().decoded(tokens)


class Wrong(Exception):
    """A result that is not right."""


def _expect(right: bool, what: str) -> None:
    if not right:
        raise Wrong(what)


def cells(family: Family, precision: str, folder: Path) -> dict[str, str]:
    """By stage: "ok" and what is worth saying, "refused: why", "wrong: what", or "error: which". What needs an earlier
    stage that gave nothing is left out."""
    model, work = folder / "model", folder / precision
    work.mkdir(parents=True)
    if not model.is_dir():
        model.mkdir()
        build(family, model)
    stages, results = Stages(model, precision, work), {}
    for name in STAGES:
        results[name] = _cell(getattr(stages, name)).replace(str(model), "it")
        if name in ("load", "personality", "task") and not results[name].startswith("ok"):
            break
    return results


def _cell(stage: Callable[[], str]) -> str:
    try:
        detail = stage()
        return f"ok: {detail}" if detail else "ok"
    except Wrong as error:
        return f"wrong: {error}"
    except MoltError as error:
        return f"refused: {getattr(error, 'what', error)}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"error: {type(error).__name__} {str(error)[:120]} ({Path(place.filename).name}, line {place.lineno})"


def measure(names: list[str]) -> None:
    """Put families through the stages, and merge the results into the file."""
    file = RESULTS / "families.json"
    results = json.loads(file.read_text()) if file.is_file() else {"families": {}}
    results["versions"] = {package.__name__: package.__version__ for package in (torch, transformers)}
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            rows = {precision: cells(FAMILIES[name], precision, Path(folder)) for precision in ("fp32", "nf4")}
        every = {**results["families"], name: rows}
        results["families"] = {kind: every[kind] for kind in FAMILIES if kind in every}
        write_json(file, results)
        lines = [f"{key} {stage}: {cell}" for key, row in rows.items() for stage, cell in row.items()]
        print(name, *lines, sep="\n  ", flush=True)


def report() -> None:
    """Write the table as Markdown."""
    results = json.loads((RESULTS / "families.json").read_text())
    write_text(RESULTS / "families.md", table(results))


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: a table, and what is refused or left alone, by family."""
    head = ["family", "base", *STAGES]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    notes = []
    for name, rows in results["families"].items():
        for precision, row in rows.items():
            columns = [f"`{name}`", precision, *(_short(row.get(stage)) for stage in STAGES)]
            lines.append("| " + " | ".join(columns) + " |")
        refusals = dict.fromkeys(cell for row in rows.values() for cell in row.values() if not cell.startswith("ok"))
        alone = rows["fp32"].get("load", "").partition("; ")[2]
        notes += [f"- `{name}`: {'; '.join([*([alone] if alone else []), *refusals])}"] if refusals or alone else []
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    text = "\n".join(["# Families of models", "", INTRODUCTION.format(versions=versions), "", *lines, "", *notes])
    return text + "\n"


INTRODUCTION = """\
Models of random weights of each family, put through the stages by `python benchmarks/families.py measure` ({versions}).
*Score* and *generate* are compared with plain forward passes, *personality* has to begin at its own reference, and
exports are loaded again and compared with what was trained."""


def _short(cell: str | None) -> str:
    return "–" if cell is None else cell.partition(":")[0]


if __name__ == "__main__":
    command, *names = sys.argv[1:] or ["help"]
    if command == "measure" and set(names) <= FAMILIES.keys():
        measure(names)
    elif command == "report":
        report()
    else:
        sys.exit(f"{__doc__}\nFamilies: {', '.join(FAMILIES)}")
