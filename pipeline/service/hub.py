"""An adapter for a model hub: its card with what was measured, and the upload."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from pathlib import Path

from moltlm.adapters import export as exports
from moltlm.data import assets
from moltlm.data.errors import BadInput, MoltError
from moltlm.data.io import write_text
from moltlm.data.state import BASE, State
from moltlm.pipeline.run import Missing, Run
from moltlm.pipeline.stages import measures, pairs

LOADING = """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{name}")
tokenizer = AutoTokenizer.from_pretrained("{base}")
tokenizer.chat_template = open("chat_template.jinja").read()  # as it was trained
```"""


def results(run: Run, state: State) -> list[str]:
    """What was measured of a state and of the base, as rows of a table; none where nothing was."""
    rows = []
    for each in (BASE, state):
        with suppress(Missing):
            facts = measures.persona_of(run, each).facts
            n = len(pairs.load_pairs(pairs.pairs(run), "heldout"))
            rows.append(f"| persona score, {n} held-out prompts | {each} | {facts['score']:.2f} |")
            rows.append(f"| coherent answers, the same prompts | {each} | {facts['coherent']:.0%} |")
        with suppress(Missing):
            summary = measures.capability(run, each).facts["summary"]
            of = ", ".join(f"{name} ({part['n']})" for name, part in summary["benchmarks"].items())
            rows.append(f"| mean accuracy of {of} | {each} | {summary['mean']:.1%} |")
    return rows


def write_card(run: Run, state: State, folder: Path, licence: str, dataset: str, rows: list[str]) -> None:
    """Write the model card beside an adapter.

    Args:
        licence: as the hub names it; empty for that of the embedded model, else none.
        dataset: hub id of the training data; empty for none.
        rows: see `results`.
    """
    model, data = run.config.model, pairs.pairs(run)
    base = exports.base_name(model)
    if not licence and assets.model_path(model.id):
        licence = "apache-2.0"
    head = [f"base_model: {json.dumps(base)}", "library_name: peft", "pipeline_tag: text-generation"]
    head += ["tags: [lora, persona, moltlm]"]
    head += [f"license: {json.dumps(licence)}"] if licence else []
    head += [f"datasets: [{json.dumps(dataset)}]"] if dataset else []
    name = pairs.load_persona(run).spec.name
    sources = ", ".join(f"{source} ({count})" for source, count in data.facts["sources"].items())
    sections = [
        "---\n" + "\n".join(head) + "\n---",
        f"# {name}: {state}",
        f"A LoRA adapter for `{base}`, trained with moltlm. The chat template in `chat_template.jinja` is part of it: "
        "with another one the personality is weaker or absent.",
        f"## Training data\n\n{data.facts['pairs']} preference pairs, by source: {sources}.",
        "## Measured\n\n" + _table(rows),
        "## Use\n\n" + LOADING.format(base=base, name="this folder"),
    ]
    if model.precision == "nf4":
        sections.insert(3, "It was trained, and measured, on the base in 4 bits (NF4).")
    write_text(folder / "README.md", "\n\n".join(sections) + "\n")


def push(folder: Path, name: str) -> str:
    """Upload a folder to a repository of the hub, which is made private if it does not exist.

    Returns:
        The address of the commit.

    Raises:
        MoltError: the hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except Exception as error:  # of the hub, the network or the name
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MoltError(
            f"{folder} was written, but not pushed to {name}: {why}",
            f"hf auth login, then: hf upload {name} {shlex.quote(str(folder))} --private",
        ) from error


def check(name: str, to: str) -> None:
    """Raises BadInput if an export to `to` cannot be pushed to a repository of this name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if to != "hub":
        raise BadInput("An export is pushed only to a hub.", "Use --to hub, or leave out --push")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise BadInput(f"{name} is no name of a repository: {error}", "Use --push USER/NAME") from None


def _table(rows: list[str]) -> str:
    if not rows:
        return "Nothing yet."
    return "\n".join(["| measure | state | value |", "|---|---|---|", *rows])
