"""Faults of a retraining cycle, made on purpose: it is killed, or refused its files, at points over its whole length.

    python benchmarks/faults.py --kills 50 --refusals 20 --out docs/findings/faults.md

A small random model with something in use gets one new conversation. One cycle runs undisturbed. Then, each in a copy
of that project, a cycle is killed (SIGKILL) at its k-th change of a file, or this and every later change is refused as
by a full disk, or a file is damaged before it starts. What is in use is read after each fault, and the cycle is run
again. It has to end with the same weights in use as the undisturbed one, or in one error that says what mends it.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltlm.adapters import card
from moltlm.data import assets
from moltlm.data.errors import MoltError
from moltlm.data.io import write_jsonl
from moltlm.data.state import PERSONALITY_ADAPTER
from moltlm.pipeline.config import Config, load
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import retrain
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import tasks

SETTINGS = [
    *("tasks={}", "hypotheses=[]", "retrain.min_new=1", "retrain.steps=3", "train.checkpoint_every=1"),
    *("gate.capability_margin=100", "gate.persona_margin=100", "gate.coherence_margin=100", "gate.anchor_margin=100"),
    *(
        "capability.items={arc_easy: 8}",
        "persona.heldout_limit=6",
        "personality.steps=3",
        "replay.budget_tokens=2000",
        "pairs.max_new_tokens=8",
        "persona_eval.max_new_tokens=8",
    ),
    *("train.gradient_accumulation=1", "pairs.temperature=1.0", "filters.min_length_ratio=0.01"),
    "screen.pull=false",
]
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
"""Audit events that change files; `open` does so by its mode."""
DAMAGED = {
    "registry.json": "registry/registry.json",
    "entry.json": "registry/entries/*/entry.json",
    "weights in use": "registry/entries/*/adapter_model.safetensors",
    "adapter_config.json": "registry/entries/*/adapter_config.json",
    "pairs": "run/pairs/*/train.jsonl",
    "artifact.json": "run/pairs/*/artifact.json",
    "inputs.json": "run/personality/*/inputs.json",
    "replay buffer, texts": "run/replay/*/exchanges.jsonl",
    "replay buffer, arrays": "run/replay/*/arrays.safetensors",
    "reference values": "run/references/*",
    "new conversation": "conversations/new.jsonl",
}
SAME, ERROR, OTHER, TRACEBACK = "same weights", "one error", "other weights", "traceback"


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, the weights in use afterwards, an error, and how often it changed a file."""

    code: int
    in_use: str
    error: str
    changes: int


def config(folder: Path) -> Config:
    """The configuration of the project in a folder."""
    places = [f"run.folder={folder}/run", f"registry.folder={folder}/registry"]
    places += [f"model.id={folder.parent}/model", "model.precision=fp32"]
    places += [f"retrain.conversations={folder}/conversations", f"conversations.forgotten={folder}/forgotten.json"]
    return load("smoke", [*SETTINGS, *places])


def small_model(folder: Path) -> None:
    """A Llama of random weights, two layers of width 64, with the tokenizer of the embedded model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(assets.model_path("smollm2-135m-instruct"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    shape = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=False, **sizes, **ids)
    model = LlamaForCausalLM(shape)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)  # else it repeats one token, and says nothing
    model.save_pretrained(folder)


def prepare(folder: Path) -> None:
    """A personality in use, its replay buffer, and one new conversation."""
    small_model(folder.parent / "model")
    from moltlm.pipeline.stages import replay

    run = Run(config(folder), Console())
    registry = Registry(run.config.registry.folder)
    registry.promote(registry.add(tasks.trained(run, PERSONALITY_ADAPTER).folder, {}).id)
    replay.buffer(run)
    run.close()
    (folder / "conversations").mkdir()
    turns = [("user", "Is there any rain in the garden tonight?"), ("assistant", "Go and look. Take the lantern.")]
    write_jsonl(
        folder / "conversations" / "new.jsonl",
        [{"messages": [{"role": role, "content": text} for role, text in turns]}],
    )


def in_use(folder: Path) -> str:
    """The personality in use, whose files are checked against their hashes. Raises MoltError if they are not whole."""
    registry = Registry(folder / "registry")
    identity = registry.current().get("personality")
    if identity is None:
        raise MoltError("no personality is in use")
    card.read(registry.path(identity))
    return identity


def cycle(folder: Path) -> None:
    """One cycle of the project."""
    run = Run(config(folder), Console())
    try:
        retrain.cycle(run)
    finally:
        run.close()


def in_a_process(act: Callable[[Path], None], folder: Path, fault: str = "", at: int = 0) -> Ended:
    """Run in a process of its own.

    Args:
        fault: "kill" it at its `at`-th change of a file in the folder, or "full": refuse it and all later ones.
    """
    process, out = os.fork(), folder / ".ended"
    if process == 0:
        _child(act, folder, fault, at, out)
    _, status = os.waitpid(process, 0)
    outcome = json.loads(out.read_text()) if out.is_file() else {"error": "", "changes": 0}
    out.unlink(missing_ok=True)
    try:
        current = in_use(folder)
    except MoltError as error:
        current = f"not readable: {error.what} {error.fix}"
    return Ended(os.waitstatus_to_exitcode(status), current, outcome["error"], outcome["changes"])


def _child(act: Callable[[Path], None], folder: Path, fault: str, at: int, out: Path) -> None:
    """Never returns."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    count = _watch(folder, fault, at)
    error, code = "", 0
    try:
        act(folder)
    except MoltError as failure:
        error, code = f"{failure.what} {failure.fix}", failure.exit_code
    except OSError as failure:
        is_disk = failure.errno in (errno.ENOSPC, errno.EROFS)
        error, code = ("The disk is full.", 2) if is_disk else (f"{TRACEBACK}: {failure!r}", 1)
    except BaseException as failure:
        error, code = f"{TRACEBACK}: {failure!r}", 1
    fault_off = count["changes"]
    count["off"] = 1
    out.write_text(json.dumps({"error": error, "changes": fault_off}))
    os._exit(code)


def _watch(folder: Path, fault: str, at: int) -> Counter[str]:
    """Count changes of files in the folder, and make the fault when it is due."""
    count, inside = Counter[str](), str(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if count["off"] or not (event in CHANGES or (event == "open" and _writes(arguments))):
            return
        if not str(arguments[0]).startswith(inside):
            return
        count["changes"] += 1
        if fault == "kill" and count["changes"] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "full" and count["changes"] >= at and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    sys.addaudithook(hook)
    return count


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return any(letter in (mode or "") for letter in "wax+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))


def damage(file: Path, kind: str, rng: random.Random) -> None:
    """Cut a file in half, or flip one bit of it."""
    content = bytearray(file.read_bytes())
    if kind == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(7)
        file.write_bytes(content)


def outcome(ended: Ended, undisturbed: str) -> str:
    """What a cycle came to, compared with the undisturbed one."""
    if ended.error.startswith(TRACEBACK):
        return TRACEBACK
    if ended.code:
        return ERROR
    return SAME if ended.in_use == undisturbed else OTHER


def copied(project: Path, number: int) -> Path:
    """A copy of the project, which every trial has for itself at a path of its own."""
    return Path(shutil.copytree(project, project.with_name(f"trial-{number}"), symlinks=True))


def points(count: int, of: int, rng: random.Random) -> list[int]:
    """Half of the points evenly spread over all changes of files, half at random."""
    even = [1 + round(step * (of - 1) / max(count // 2 - 1, 1)) for step in range(count // 2)]
    return even + [rng.randint(1, of) for _ in range(count - len(even))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--refusals", type=int, default=20)
    parser.add_argument("--no-damage", action="store_true", help="leave out damaged files")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="molt-faults-") as temporary:
        rows = table(Path(temporary), options.kills, options.refusals, not options.no_damage)
    text = "\n".join(rows) + "\n"
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def table(temporary: Path, kills: int, refusals: int, with_damage: bool) -> list[str]:
    """Make the faults, and the lines of a Markdown table of what they came to."""
    rng, project = random.Random(0), temporary / "project"
    project.mkdir()
    ended = in_a_process(prepare, project)
    if ended.code:
        raise SystemExit(f"the project could not be prepared: {ended.error}")
    before = ended.in_use
    folder = copied(project, 0)
    reference = in_a_process(cycle, folder)
    if reference.code or reference.in_use == before:
        raise SystemExit(f"the undisturbed cycle did not promote: {reference}")
    sys.stderr.write(f"undisturbed: {reference.changes} changes of files\n")
    lines = ["| fault | times | in use right after it | then, the cycle again |", "|---|---|---|---|"]
    number = 0
    for fault, label, count in (("kill", "killed", kills), ("full", "disk full from then on", refusals)):
        after, then = Counter[str](), Counter[str]()
        for at in points(count, reference.changes, rng) if count else []:
            number += 1
            began, folder = time.monotonic(), copied(project, number)
            broken = in_a_process(cycle, folder, fault, at)
            after[_which(broken.in_use, before, reference.in_use)] += 1
            result = outcome(in_a_process(cycle, folder), reference.in_use)
            then[result] += 1
            sys.stderr.write(
                f"{label} at {at}: {broken.error or broken.code}, then {result}, {time.monotonic() - began:.0f} s\n"
            )
            shutil.rmtree(folder)
        if count:
            lines.append(
                f"| {label}, at points over the whole cycle | {count} | {_counted(after)} | {_counted(then)} |"
            )
    for name, pattern in DAMAGED.items() if with_damage else ():
        for kind, label in (("cut", "cut in half"), ("flip", "one bit flipped")):
            number += 1
            folder = copied(project, number)
            file = sorted(folder.glob(pattern))[0]
            damage(file, kind, rng)
            ended = in_a_process(cycle, folder)
            result = outcome(ended, reference.in_use)
            sys.stderr.write(f"{name} {label}: {result}: {ended.error}\n")
            lines.append(f"| {name}, {label} | 1 | {_which(ended.in_use, before, reference.in_use)} | {result} |")
            shutil.rmtree(folder)
    return lines


def _which(identity: str, before: str, after: str) -> str:
    return {before: "former, whole", after: "new, whole"}.get(
        identity, "not readable" if " " in identity else "another, whole"
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


if __name__ == "__main__":
    main()
