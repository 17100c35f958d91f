"""A tiny real Llama with a real tokenizer and chat template, made once for the test session. No hub, no download."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

WORDS = "hello what should i do today rain tea drawer clock window please remind me list files"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are no part of a test's name: an archive holds the time of day, and all workers have to collect the same."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer Llama of random weights (hidden size 64) in fp32."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [WORDS], trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=raw.token_to_id("<|im_end|>"),
        pad_token_id=raw.token_to_id("<|endoftext|>"),
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def talkative(tiny: Path, folder: Path, head: float = 1.0) -> Path:
    """The tiny model with a head of its own, of this standard deviation: with tied embeddings it repeats the line break
    before its answer, and its logits are so small that nothing taught makes one token much likelier than another."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny, tie_word_embeddings=False)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.lm_head.weight, std=head)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_project(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `project.yaml`: every stage on a tiny model that talks, two tasks, and methods to compare."""
    import yaml

    from moltlm.pipeline import config

    folder = tmp_path_factory.mktemp("project")
    tiny = talkative(tiny, folder / "model")
    small = {"train": 24, "test": 8, "steps": 3, "batch_size": 4, "learning_rate": 5e-3, "replay_ratio": 0.0}
    raw = yaml.safe_load(config.shipped("smoke.yaml").read_text())
    raw["run"]["folder"] = str(folder / "run")
    raw["model"] |= {"id": str(tiny), "precision": "fp32"}
    raw["pairs"] |= {"max_new_tokens": 8, "temperature": 1.0}
    raw["filters"] = {"min_length_ratio": 0.01}
    raw["train"]["gradient_accumulation"] = 1
    raw["persona_eval"]["max_new_tokens"] = 8
    raw["tasks"] = {"reminders": {"kind": "reminders", **small}, "shell": {"kind": "shell", **small}}
    raw["capability"] = {"items": {"arc_easy": 4}}
    raw["screen"] = {"pull": False}  # of three steps' personality little can be measured
    methods = {
        "plain": {"protect.layout": "shared"},
        "stacked": {"protect.layout": "stacked", "tasks.*.replay_ratio": 0.25},
        "routed": {},
        "mixture": {"protect.layout": "mixture", "protect.experts": 2, "protect.top_experts": 1},
        "arrow": {"router.method": "arrow"},
        "gates": {"router.method": "token", "router.steps": 3},
        "held": {"protect.layout": "shared", "protect.kl_weight": 1.0, "protect.ewc_weight": 1.0},
    }
    raw["sequence"] = {"methods": methods, "reference": "plain", "seeds": [0, 1]}
    (folder / "project.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def trained_project(tiny_project: Path) -> str:
    """The configuration of the tiny project, with its personality and both tasks trained."""
    from moltlm.data.state import Adapter
    from moltlm.pipeline.config import load
    from moltlm.pipeline.console import Console
    from moltlm.pipeline.run import Run
    from moltlm.pipeline.stages import tasks

    name = str(tiny_project / "project.yaml")
    run = Run(load(name), Console())
    tasks.task(run, Adapter("reminders"))
    tasks.task(run, Adapter("shell"))
    run.close()
    return name
