"""A small project with something in use, and one `molt` command on it in a process of its own, with a fault in it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from moltlm.adapters import card, personality  # noqa: F401, imported here once, not in each process
from moltlm.data.errors import MoltError
from moltlm.data.io import write_jsonl
from moltlm.pipeline import cli, config
from moltlm.pipeline.service import after_cycle, retrain  # noqa: F401
from moltlm.pipeline.service.registry import Registry

CONFIG, MODEL = "molt.yaml", "model"
SETTINGS: dict[str, Any] = {
    "run": {"folder": "run", "seed": 0},
    "model": {"id": f"../{MODEL}", "precision": "fp32"},
    "pairs": {"max_new_tokens": 8, "temperature": 1.0},
    "filters": {"min_length_ratio": 0.01},
    "train": {"gradient_accumulation": 1, "checkpoint_every": 1},
    "replay": {"budget_tokens": 2000},
    "tasks": {},
    "capability": {"items": {"arc_easy": 2}},
    "persona": {"train_limit": 6, "heldout_limit": 3},
    "persona_eval": {"max_new_tokens": 8, "neutral": 2, "samples": 2},
    "gate": dict.fromkeys(("capability_margin", "persona_margin", "coherence_margin", "anchor_margin"), 100),
    "registry": {"folder": "registry"},
    "retrain": {"conversations": "conversations", "min_new": 1, "steps": 3},
    "conversations": {"forgotten": "forgotten.json"},
    "screen": {"pull": False},
}
"""On top of the smoke job's. Of a personality that three steps trained, little can be measured."""
CHATS = {
    "first": ("Is there any rain in the garden tonight?", "Go and look. Take the lantern."),
    "second": ("Why is my neighbour's clock always early?", "He is afraid of trains. Be kind to him."),
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRACEBACK = "Traceback (most recent call last)"
Weights = dict[str, np.ndarray]
Fault = Callable[[Path], Callable[[], None] | None]
"""Is called in the process, with the project's folder, before the command; what it returns is called after it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative: of the signal that ended it.
        in_use: the personality in use afterwards; empty if what is in use is not whole.
        output: what it printed.
        weights: of the personality in use; empty if it is not whole.
    """

    code: int
    in_use: str
    output: str
    weights: Weights

    @property
    def error(self) -> str:
        """The error and its fix, in one line; the end of a traceback, where there is one."""
        if TRACEBACK in self.output:
            return f"traceback: {self.output.strip().splitlines()[-1]}"
        _, found, text = f"\n{self.output}".rpartition("\nerror  ")
        return " ".join(text.split()) if found else ""


def prepare(folder: Path) -> None:
    """A project whose personality was retrained once, and that has one new conversation."""
    folder.mkdir()
    _small_model(folder.parent / MODEL)
    raw = yaml.safe_load(config.shipped("smoke.yaml").read_text(encoding="utf-8"))
    raw["model"].pop("shape")  # of another model
    for name, section in SETTINGS.items():
        whole = name in ("tasks", "capability") or not isinstance(raw.get(name), dict)
        raw[name] = section if whole else {**raw[name], **section}
    (folder / CONFIG).write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    for words in (["data", "build"], ["train", "personality"], ["replay", "build"]):
        _expect(folder, *words)
    _warm_up(folder)
    registry = Registry(folder / "registry")
    if "personality" not in registry.current():  # three steps teach nothing that a gate would see
        _expect(folder, "registry", "promote", registry.entries()[0][0].id)
    converse(folder, "first")
    _expect(folder, "retrain")
    converse(folder, "second")


def _warm_up(folder: Path) -> None:
    """Run the gate in this process, so that what is imported and read for it is there in each that is forked from it.
    It trains nothing: after a backward pass no forked process could do one."""
    silence = io.StringIO()
    quiet = contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence)
    with contextlib.chdir(folder), quiet[0], quiet[1], contextlib.suppress(SystemExit):
        cli.main(["gate", CONFIG])


def _small_model(folder: Path) -> None:
    """A Llama of random weights, two layers of width 64, with a tokenizer of 500 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    text = [part for chat in CHATS.values() for part in chat]
    raw.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    )
    names = {"eos_token": special[2], "pad_token": special[0], "chat_template": TEMPLATE}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    shape = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=False, **sizes, **ids)
    model = LlamaForCausalLM(shape)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)  # else it repeats one token, and says nothing
    model.save_pretrained(folder)


def converse(folder: Path, name: str) -> None:
    """Add one conversation to those that a cycle reads."""
    turns = zip(("user", "assistant"), CHATS[name], strict=True)
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}]
    (folder / "conversations").mkdir(exist_ok=True)
    write_jsonl(folder / "conversations" / f"{name}.jsonl", rows)


def _expect(folder: Path, *words: str) -> None:
    ended = molt(folder, *words)
    if ended.code not in (0, 3):
        raise SystemExit(f"molt {' '.join(words)} ended with {ended.code}:\n{ended.output}")


def copied(project: Path, name: str, to: Path | None = None) -> Path:
    """A copy of the project beside it, or elsewhere, for one trial."""
    target = (to or project.parent) / name
    return Path(shutil.copytree(project, target, symlinks=True, dirs_exist_ok=True))


def in_use(folder: Path) -> str:
    """The personality in use, whose files are compared with their hashes; empty if it is not whole."""
    registry = Registry(folder / "registry")
    try:
        identity = registry.current()["personality"]
        card.read(registry.path(identity))
    except (MoltError, OSError, KeyError):
        return ""
    return identity


def weights_in_use(folder: Path) -> Weights:
    """The weights of the personality in use; empty if it is not whole."""
    identity = in_use(folder)
    return load_file(folder / "registry" / "entries" / identity / "adapter_model.safetensors") if identity else {}


@dataclass
class Process:
    """A `molt` command under way."""

    folder: Path
    number: int
    log: Path
    began: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        """Whether it has ended; does not wait."""
        return os.waitid(os.P_PID, self.number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> Ended:
        """Wait for its end."""
        _, status = os.waitpid(self.number, 0)
        output = self.log.read_text(encoding="utf-8", errors="replace")
        self.log.unlink()
        return Ended(os.waitstatus_to_exitcode(status), in_use(self.folder), output, weights_in_use(self.folder))


def start(folder: Path, *words: str, fault: Fault | None = None, settings: tuple[str, ...] = ()) -> Process:
    """Start `molt WORDS molt.yaml SETTINGS` in the folder of a project."""
    log = Path(tempfile.gettempdir()) / f"molt-{os.getpid()}-{time.monotonic_ns()}.log"  # not on a disk that gets full
    process = os.fork()
    if process == 0:
        _become(folder, [*words, CONFIG, *settings], log, fault)
    return Process(folder, process, log)


def molt(folder: Path, *words: str, fault: Fault | None = None, settings: tuple[str, ...] = ()) -> Ended:
    """Run `molt WORDS molt.yaml SETTINGS` to its end."""
    return start(folder, *words, fault=fault, settings=settings).wait()


def _become(folder: Path, words: list[str], log: Path, fault: Fault | None) -> None:
    """Be the command, in a forked process. Never returns."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.chdir(folder)
    code: Any = 1
    after = fault(folder) if fault else None
    try:
        cli.main(words)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    if after:
        after()
    os._exit(code)


def obey(folder: Path, error: str) -> str:
    """Run what an error names as its mend: the words from the first known command on.

    Returns:
        The command; empty if it names none.
    """
    match = re.search(r"(?<![\w/.-])(rm -r|rm|molt) .*", error)
    if not match:
        return ""
    words = re.split(r"\.?(?:   |$)| - ", match.group())[0].rstrip(". ")
    prelude = f'molt() {{ {sys.executable} -m moltlm.pipeline.cli "$@"; }}\n'
    subprocess.run(["bash", "-c", prelude + words], cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)
    return words


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own in memory at this folder (needs root), so that it can be filled."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0
