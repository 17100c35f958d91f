"""Export one state of a run for use elsewhere."""

from __future__ import annotations

import math
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from moltlm.adapters import card, compose, ollama, vllm
from moltlm.adapters import export as exports
from moltlm.adapters.llama_cpp import whole
from moltlm.data.errors import BadInput
from moltlm.data.state import BASE, State
from moltlm.pipeline import layout
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import hub
from moltlm.pipeline.stages import pairs, tasks

PROMPTS = 8
"""Held-out prompts on which the export is compared with the trained adapters."""
LAYOUTS = ("adapter", "merged", "gguf", "gguf-adapter", "ollama", "vllm", "hub")


@dataclass(frozen=True)
class Request:
    """What is exported.

    Attributes:
        to: one of LAYOUTS.
        state: without routes; the base alone only as whole weights.
        method: how several adapters become one.
        rank: of the one adapter; None for what the method needs.
        quant: form of the weights in GGUF.
        base_name: the base's name in Ollama, above which it loads the adapter; empty for a GGUF of its own.
        licence: of the model card; empty for that of the embedded model, else none.
        dataset: hub id of the data set that the model card names; empty for none.
    """

    to: str
    state: State
    method: str = "cat"
    rank: int | None = None
    quant: str = "Q8_0"
    base_name: str = ""
    licence: str = ""
    dataset: str = ""

    @property
    def is_gguf(self) -> bool:
        """Whether the whole model is written as GGUF."""
        return self.to == "gguf" or (self.to == "ollama" and not self.base_name)

    @property
    def is_whole(self) -> bool:
        """Whether the base's weights are part of the export."""
        return self.is_gguf or self.to == "merged"


@dataclass(frozen=True)
class Exported:
    """An export that was loaded again and compared.

    Attributes:
        request: what was asked for.
        check: the comparison with the trained adapters.
        composition: how several adapters became one; None for whole weights.
        files: names in the folder.
        needs_folder: whether serve.sh is told the folder of the base.
    """

    request: Request
    check: exports.Check
    composition: compose.Composition | None
    files: list[str]
    needs_folder: bool

    def sentences(self, out: Path) -> list[str]:
        """Lines for a reader: how exact the export is, and the next command."""
        lines = [f"loaded again: KL {self.check.kl:.5f} nats a token from what was trained"]
        if self.composition and not self.composition.exact:
            lines.append(f"the single adapter differs from the exact stack by {self.composition.error:.0%}")
        if self.check.shift is not None and not self.request.is_whole:
            lines.append(f"on the original 16-bit weights it would be {self.check.shift:.4f} nats a token away")
        following = _following(self.request, out, self.needs_folder)
        return [*lines, *_notes(self.request), *([f"next: {following}"] if following else [])]


def export(run: Run, out: Path, request: Request) -> Exported:
    """Export a state into the folder `out`, which exists only if the export agrees with what was trained.
    `molt export CONFIG --to adapter`

    Raises:
        BadInput: for a state without a fixed stack of adapters, or what the layout cannot express.
    """
    check(run, request)
    model, heldout = run.config.model, pairs.load_pairs(pairs.pairs(run), "heldout")[:PROMPTS]
    folders = [tasks.trained(run, adapter).folder for adapter in request.state.adapters]
    results = hub.results(run, request.state) if request.to == "hub" else []
    run.release()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    composition = _write(run, request, folders, partial, out.name)
    if request.to == "hub":
        hub.write_card(run, request.state, partial, request.licence, request.dataset, results)
    # what is known to lose something is reported, not refused
    near = (not composition or composition.exact) and (not request.is_gguf or request.quant in whole.NEAR)
    answers = [pair.chosen for pair in heldout]
    prompts = [pair.prompt for pair in heldout]
    checked = exports.check(model, folders, partial, prompts, answers, exports.AGREES if near else math.inf)
    partial.rename(out)
    files = sorted(file.name for file in out.iterdir())
    return Exported(request, checked, composition, files, exports.needs_folder(model))


def check(run: Run, request: Request) -> None:
    """Raises BadInput if it cannot be exported, before anything is loaded or written."""
    state, model = request.state, run.config.model
    if request.to not in LAYOUTS:
        raise BadInput(f"Nothing is exported to {request.to}.", f"Use --to {', --to '.join(LAYOUTS)}")
    if state.routes or (state == BASE and not request.is_whole):
        raise BadInput(f"The state {state} cannot be exported.", "Name another: --state personality+TASK")
    if request.method not in get_args(compose.Method):
        raise BadInput(f"Unknown method {request.method}.", f"Use one of: {', '.join(get_args(compose.Method))}.")
    if request.is_whole and (request.method != "cat" or request.rank):
        raise BadInput("Whole weights have all adapters merged in, exactly.", "Leave out --method and --rank.")
    if request.base_name and request.to != "ollama":
        raise BadInput("--base-name is for Ollama.", "Leave it out, or use --to ollama")
    layout.check_state(run, state)
    if request.is_gguf or request.to == "gguf-adapter" or request.base_name:
        exports.check_gguf(model, request.quant if request.is_gguf else None)
    if request.to == "ollama":
        exports.modelfile(model, "")


def _write(run: Run, request: Request, folders: list[Path], out: Path, name: str) -> compose.Composition | None:
    """Write the files of a layout into `out`."""
    model, composition = run.config.model, None
    if request.is_gguf:
        exports.gguf(model, folders, out, request.quant, name)
    elif request.is_whole:
        exports.merged(model, folders, out)
    else:
        composition = exports.adapter(model, folders, out, request.method, request.rank)  # type: ignore[arg-type]
    if request.to == "gguf-adapter" or request.base_name:
        exports.gguf_adapter(model, out, name)
    if request.to == "ollama":
        adapter = f"./{exports.ADAPTER_FILE}" if request.base_name else ""
        source = request.base_name or f"./{exports.MODEL_FILE}"
        ollama.write(out, exports.modelfile(model, source, adapter))
    if request.to == "vllm" and composition:
        served = f"{name}-{card.weights_hash(out)[:8]}"
        vllm.write(out, exports.base_name(model), exports.needs_folder(model), served, composition.rank)
    return composition


def _notes(request: Request) -> list[str]:
    """What a user should know of a layout."""
    if not request.base_name:
        return []
    return [
        f"Ollama up to {ollama.ADAPTERS_UNTIL}.0 takes this adapter; later ones refuse adapters: leave out --base-name",
        f"the adapter was not tried on {request.base_name}, whose weights Ollama has in a form of its own",
    ]


def _following(request: Request, out: Path, needs_folder: bool) -> str:
    """The command that uses the export; empty where there is none."""
    folder = shlex.quote(str(out))
    commands = {
        "merged": f"vllm serve {folder}",
        "gguf": f"llama-server -m {folder}/{exports.MODEL_FILE}",
        "gguf-adapter": f"llama-server -m BASE.gguf --lora {folder}/{exports.ADAPTER_FILE} "
        f"--chat-template-file {folder}/{exports.TEMPLATE_FILE} (BASE.gguf: molt export CONFIG --to gguf --state base)",
        "ollama": f"cd {folder} && ollama create NAME -f Modelfile",
        "vllm": f"sh {folder}/serve.sh" + (f" FOLDER (FOLDER: {vllm.BASE_FOLDER})" if needs_folder else ""),
        "hub": f"look at {folder}/README.md, then: molt export CONFIG --to hub --push NAME",
    }
    return commands.get(request.to, "")
