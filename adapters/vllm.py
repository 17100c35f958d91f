"""Files to serve an exported adapter with vLLM."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.data.io import write_text

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for --max-lora-rank."""
GREEDY = {"temperature": 0, "top_k": 0, "top_p": 1, "repetition_penalty": 1}
"""How the model is measured, in place of what the base's generation_config.json says."""

BASE_FOLDER = "molt export CONFIG --to merged --state base --out FOLDER"
"""Writes the base as the adapter was trained on it: of a 4-bit base, the dequantised weights."""


def write(folder: Path, base: str, needs_folder: bool, name: str, rank: int) -> None:
    """Write serve.sh beside the adapter and its chat template in `folder`.

    Args:
        base: the name of the base.
        needs_folder: whether the base as it was trained on is on no hub, so the script is told a folder.
        name: of the served model. vLLM keeps what it has loaded by name, so each adapter needs one of its own.

    Raises:
        BadInput: vLLM does not serve adapters of this rank.
    """
    allowed = next((limit for limit in RANKS if limit >= rank), None)
    if allowed is None:
        raise BadInput(f"vLLM serves adapters up to rank {RANKS[-1]}, and this has {rank}.", "Use --to merged.")
    usage = f"usage: sh serve.sh FOLDER, with {base} as it was trained on, by: {BASE_FOLDER}"
    start = f"base=${{1:?{usage}}}" if needs_folder else f"base=${{1:-{shlex.quote(base)}}}"
    options = [
        "--enable-lora",
        f"--max-lora-rank {allowed}",
        f'--lora-modules {shlex.quote(name)}="$here"',
        '--chat-template "$here/chat_template.jinja"',
        f"--override-generation-config {shlex.quote(json.dumps(GREEDY))}",
    ]
    lines = ["#!/bin/sh", 'here=$(cd "$(dirname "$0")" && pwd)', start, "[ $# -gt 0 ] && shift"]
    lines.append(f'exec vllm serve "$base" {" ".join(options)} "$@"')
    write_text(folder / "serve.sh", "\n".join(lines) + "\n")
