"""A new project: a folder with a persona, a config that runs, and a folder for conversations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moltlm.data import spec as specs
from moltlm.data.errors import BadInput
from moltlm.data.io import write_text
from moltlm.data.spec import Spec, Trait
from moltlm.data.spec_formats.reading import SpecReading
from moltlm.pipeline.config import load

Ask = Callable[[str, str | None], str]
"""Asks a question with an optional default, and returns the answer."""

CONFIG = """\
# The configuration of {name}. Run it from this folder: molt run molt.yaml
# Any setting can be changed on the command line: molt run molt.yaml personality.steps=100
# All settings with their defaults: molt config show molt.yaml; one of them: molt config explain dpo.beta
run: {{folder: runs/{slug}, seed: 0}}
model:
  id: {model}   # hub id or local folder; model.shape is its architecture, for `molt config check`
  precision: nf4              # nf4 (4-bit), bf16 or fp32
  compute_dtype: bfloat16     # of a 4-bit model; float32 is faster on a CPU, and gives the same on every CPU
  max_length: 512
persona: {{spec: persona}}
conversations:
  paths: []                   # your own chats in this voice, any export: [conversations]
teacher:                      # writes answers in persona to prompts that have none
  kind: base                # none; base: the model itself, with the persona as system prompt; endpoint: a server
  url: http://localhost:11434/v1
  model: ""                   # its name at the endpoint
  prompts_per_trait: {prompts}
  max_tokens: 96
pairs: {{max_new_tokens: 64}}
personality: {{method: dpo, steps: 60, batch_size: 6, learning_rate: 4e-4}}
dpo: {{beta: 0.1, nll_weight: 1.0, kl_weight: 0.1}}
replay: {{select: uniform, budget_tokens: 5000}}
train: {{gradient_checkpointing: false, gradient_accumulation: 1, warmup_steps: 2}}
tasks:                        # remove what you do not want to teach
  reminders: {{kind: reminders, steps: 36, batch_size: 8, learning_rate: 5e-4, replay_ratio: 0.25, control: true}}
capability:
  items: {{arc_easy: 100, lambada: 150}}
hypotheses: []
registry: {{folder: runs/registry}}
retrain: {{conversations: conversations}}
"""
CONVERSATIONS = """\
# Conversations

Put chats here whose assistant speaks in the voice to keep: ChatGPT or Claude exports, ShareGPT, `messages` JSONL, agent
session logs, Markdown transcripts, or zips of them; and preference data with a better and a worse answer.

- to learn from them now: `molt data import EXPORT --out conversations/chats.jsonl` shows what is kept, then set
  `conversations.paths: [conversations]` in molt.yaml
- to learn from new ones later: `molt retrain molt.yaml` reads this folder
- to say what an answer should have been: `molt data correct molt.yaml` writes corrections.jsonl here, for both to learn
  from
"""
QUESTIONS = (
    ("name", "What is the assistant called?", None),
    ("summary", "Who is that, in one sentence?", None),
    ("voice", "How do they talk?", "Plainly and briefly, to one person."),
    ("trait", "One trait, in the first person", "I say what I do not know as plainly as what I do."),
    ("trait", "A second trait", "I look for the smallest thing that can be done now."),
    ("trait", "A third trait", "I am on your side, which sometimes means that I do not agree with you."),
    ("boundary", "What do they never do?", "I do not pretend to be human."),
)


def ask_for_spec(ask: Ask, name: str | None = None) -> SpecReading:
    """Make a spec from the answers to a handful of questions.

    Args:
        name: what the persona is called; it is asked for if it is None.

    Raises:
        BadInput: without a name.
    """
    answers: dict[str, list[str]] = {"name": [name.strip()]} if name and name.strip() else {}
    for key, question, default in QUESTIONS[1:] if answers else QUESTIONS:
        answers.setdefault(key, []).append(ask(question, default).strip())
    name = answers["name"][0]
    if not name:
        raise BadInput("An assistant needs a name.", "Run it again, or start from a file: molt init FOLDER --from FILE")
    description, voice = answers["summary"][0], answers["voice"][0]
    traits = [text for text in answers["trait"] if text] or ["I am who I say I am."]
    spec = Spec(
        name=name,
        summary=description,
        system_prompt=" ".join(part for part in (f"You are {name}.", description, voice) if part),
        voice=[voice] if voice else [],
        traits=[Trait(id=f"trait_{place}", text=text) for place, text in enumerate(traits, start=1)],
        boundaries=[text for text in answers["boundary"] if text],
        catchphrases=[name],
    )
    return SpecReading(spec, "your answers")


def summary(reading: SpecReading) -> list[str]:
    """Lines that say what was read and what was left out, by kind."""
    spec = reading.spec
    contents = {
        "trait": len(spec.traits),
        "question": sum(len(trait.questions) for trait in spec.traits),
        "dialogue": len(spec.dialogues),
        "line on voice": len(spec.voice),
        "value": len(spec.values),
        "fact": len(spec.facts),
    }
    parts = [_count(number, noun) for noun, number in contents.items()]
    parts.append(f"{len(spec.boundaries)} {'boundary' if len(spec.boundaries) == 1 else 'boundaries'}")
    lines = [f"{spec.name}, read from {reading.format}: {', '.join(parts)}"]
    if reading.left_out:
        counts = [f"{what} ({number})" for what, number in sorted(reading.left_out.items())]
        lines.append(f"left out: {', '.join(counts)}")
    return lines


def _count(number: int, noun: str) -> str:
    head, _, rest = noun.partition(" ")
    return f"{number} {head}{'' if number == 1 else 's'}{' ' if rest else ''}{rest}"


def create(folder: Path, spec: Spec, model: str) -> list[Path]:
    """Write the project. Raises BadInput, with nothing changed, when anything would be overwritten."""
    written = {
        "molt.yaml": _config(spec, model),
        "conversations/README.md": CONVERSATIONS,
        ".gitignore": "runs/\nconversations/*\n!conversations/README.md\n",
    }
    paths = [folder / name for name in ("persona/persona.yaml", *written)]
    existing = [path for path in paths if path.exists()]
    if folder.exists() and not folder.is_dir():
        existing = [folder]
    if existing:
        raise BadInput(f"{existing[0]} exists already; nothing was changed.", "Name a new folder: molt init OTHER")
    specs.write(spec, paths[0])
    for name, text in written.items():
        write_text(folder / name, text)
    load(str(folder / "molt.yaml"))
    return paths


def _config(spec: Spec, model: str) -> str:
    slug = "".join(char if char.isalnum() else "-" for char in spec.name.lower()).strip("-") or "persona"
    has_questions = any(trait.questions for trait in spec.traits)
    per_trait = 12 if has_questions else max(8, -(-96 // len(spec.traits)))
    return CONFIG.format(name=" ".join(spec.name.split()), slug=slug, model=model, prompts=per_trait)
