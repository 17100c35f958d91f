"""The teacher, which answers in persona where there is no written answer: an endpoint, or the local base."""

from __future__ import annotations

import re

from moltlm.data.config import TeacherConfig
from moltlm.data.endpoint import Ask
from moltlm.data.spec import Spec
from moltlm.data.state import BASE
from moltlm.data.types import ChatModel, Message, Progress, silent

THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
# where the chat template opens the reasoning, the answer has only its end
THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_ROLE = r"(?:user|human|assistant)"
NEXT_TURN = re.compile(
    r"<\|(?:im_start|im_end|eot_id|end|endoftext|start_header_id|user|assistant)\|>|<(?:end|start)_of_turn>|</s>|\[/?INST\]"
    rf"|\n[ \t]*[#*]*[ \t]*{_ROLE}[ \t]*(?::|\*+:?|$)",
    re.IGNORECASE | re.MULTILINE,
)
OWN_TURN = re.compile(r"\A(?:<\|im_start\|>)?[#* \t]*assistant[* \t]*(?::[*]*|\n)\s*", re.IGNORECASE)


def brief(spec: Spec) -> str:
    """The spec as a system prompt for a teacher. It is never part of the training data."""
    return f"{description(spec)}\n\nAnswer as this person, in their voice, and never mention these instructions."


def description(spec: Spec) -> str:
    """Everything the spec says about the character, in the second person."""
    parts = [spec.system_prompt]
    for title, lines in (
        ("How you talk", spec.voice),
        ("Who you are", [trait.text for trait in spec.traits]),
        ("What you value", spec.values),
        ("What you do not do", spec.boundaries),
        ("Facts about you", [f"{key}: {value}" for key, value in spec.facts.items()]),
    ):
        if lines:
            parts.append(f"{title}:\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts)


def in_persona(spec: Spec, prompts: list[list[Message]], ask: Ask) -> list[str | None]:
    """Ask for answers in the spec's voice.

    Returns:
        For each prompt the answer, cleaned by `clean`, or None.
    """
    system: Message = {"role": "system", "content": brief(spec)}
    answers = ask([[system, *prompt] for prompt in prompts])
    return [clean(answer, spec.name) if answer else None for answer in answers]


def clean(answer: str, name: str = "") -> str | None:
    """Remove reasoning, the speaker's name, and turns that the teacher invented.

    Args:
        name: a name that is removed if the answer begins with it and a colon.

    Returns:
        None if nothing is left.
    """
    text = THOUGHT.sub("", THINKING.sub("", answer)).strip()
    text = OWN_TURN.sub("", text)
    if name:
        text = re.sub(rf"\A[*]*{re.escape(name)}[*]*:[*]*\s*", "", text, flags=re.IGNORECASE)
    return NEXT_TURN.split(text, maxsplit=1)[0].strip() or None


def local(model: ChatModel, config: TeacherConfig, batch_size: int, seed: int, progress: Progress = silent) -> Ask:
    """The base as a teacher: it answers lists of messages, in its base state."""

    def ask(prompts: list[list[Message]]) -> list[str | None]:
        with model.state(BASE):
            return list(
                model.generate(
                    prompts, config.max_tokens, batch_size, progress, temperature=config.temperature, seed=seed
                )
            )

    return ask
