"""One chat template for training, measuring and serving: the tokenizer's own, with what it leaves open settled.

A template can render the prompt of an answer to be written unlike the same prompt before a written answer (an empty
thought, a channel), refuse a system message or two turns of one side, and put today's date into every prompt. Here such
a template gets a few lines before and after it, so that TRL, generation, scores and exports all render the same text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moltlm.data.errors import BadInput
from moltlm.data.types import Message

Thinking = Literal["off", "on", "template"]
ANSWER, SYSTEM = "MarkOfTheAnswer", "MarkOfTheSystem"
QUESTION: Message = {"role": "user", "content": "MarkOfTheQuestion"}
LATER: Message = {"role": "user", "content": "MarkOfWhatFollows"}
THINKING_SWITCHES = ("enable_thinking", "thinking")
DATE = "26 Jul 2024"
"""What templates that ask for today's date are told, so that a prompt is the same on every day. Llama 3.1's own."""
PINNED_DATE = f"""\
{{% set date_string = "{DATE}" %}}
{{% macro strftime_now(format) %}}{DATE}{{% endmacro %}}
"""
TEXT_PARTS = """\
{% set _ns = namespace(turns=[]) %}
{% for turn in messages %}
{% if turn['content'] is string %}
{% set _ns.turns = _ns.turns + [{'role': turn['role'], 'content': [{'type': 'text', 'text': turn['content']}]}] %}
{% else %}
{% set _ns.turns = _ns.turns + [turn] %}
{% endif %}
{% endfor %}
{% set messages = _ns.turns %}
"""
SYSTEM_IN_USER_TURN = """\
{% if messages and messages[0]['role'] == 'system' %}
{% if messages | length > 1 and messages[1]['role'] == 'user' %}
{% set _first = messages[0]['content'] + '\\n\\n' + messages[1]['content'] %}
{% set messages = [{'role': 'user', 'content': _first}] + messages[2:] %}
{% else %}
{% set messages = [{'role': 'user', 'content': messages[0]['content']}] + messages[1:] %}
{% endif %}
{% endif %}
"""
ALTERNATING = """\
{% set _ns = namespace(turns=[], began=false) %}
{% for turn in messages %}
{% if turn['role'] == 'user' %}{% set _ns.began = true %}{% endif %}
{% if turn['role'] == 'assistant' and not _ns.began %}
{% elif _ns.turns and _ns.turns[-1]['role'] == turn['role'] %}
{% set _joined = _ns.turns[-1]['content'] + '\\n\\n' + turn['content'] %}
{% set _ns.turns = _ns.turns[:-1] + [{'role': turn['role'], 'content': _joined}] %}
{% else %}
{% set _ns.turns = _ns.turns + [turn] %}
{% endif %}
{% endfor %}
{% set messages = _ns.turns %}
"""


@dataclass(frozen=True)
class TemplateFacts:
    """What was settled for a template, and what it adds to every prompt.

    Attributes:
        thinking: "none" for a template without a switch or an opened thought, else the setting.
        prefix: what the template writes after the generation prompt and before each written answer; it is part of the
            prompt.
        end: the token that ends an answer, which is learned and stops generation.
        system: whether a system message has its own place, else it opens the first user turn.
        alternating: whether turns of one side were joined and an opening answer dropped, since the template refuses
            them.
        default_system: what a prompt without a system message begins with; empty for nothing.
        dated: whether the template asks for today's date; it is told `DATE`.
    """

    thinking: str
    prefix: str
    end: str
    system: bool
    alternating: bool
    default_system: str
    dated: bool

    def sentences(self) -> list[str]:
        """What a user should know."""
        lines = []
        if self.thinking != "none":
            lines.append(f"The model can think before it answers; thinking is {self.thinking} (model.thinking).")
        if self.prefix.strip():
            lines.append(f"Every answer begins after {self.prefix!r}, in training and when it is served.")
        if not self.system:
            lines.append("The template has no system role; a system message opens the first user turn.")
        if self.alternating:
            lines.append("The template wants turns to alternate; turns of one side in a row are joined.")
        if self.default_system:
            lines.append(f"A prompt without a system message begins with the template's own: {self.default_system!r}.")
        if self.dated:
            lines.append(f"The template asks for the date; it is always {DATE}.")
        return [*lines, f"An answer ends with {self.end}."]


def settle(tokenizer: Any, thinking: Thinking, stops: Sequence[int], name: str) -> TemplateFacts:
    """Replace the tokenizer's chat template by one that renders prompts and answers alike.

    Args:
        thinking: `off` closes or leaves out the thought before an answer, `on` asks for one, `template` changes
            nothing.
        stops: ids of the tokens that end generation for this model.
        name: of the model, for errors.

    Raises:
        BadInput: the template cannot render a conversation, or nothing that the model could learn ends an answer.
    """
    template = tokenizer.chat_template.removesuffix("\n")
    dated = bool(re.search(r"strftime_now|date_string", template))
    before = PINNED_DATE if dated else ""
    switches = _switches(tokenizer, before + template)
    thinks = bool(switches) or _thought(_render(tokenizer, before + template, [QUESTION], True) or "")
    if thinking != "template":
        value = "true" if thinking == "on" else "false"
        before += "".join(f"{{% set {switch} = {value} %}}\n" for switch in switches)
    if ANSWER not in (_render(tokenizer, before + template, [QUESTION, _answer()]) or ""):
        before += TEXT_PARTS
    has_system, alternating, turns = _turns(tokenizer, before + template)
    before = turns + before
    prompt = _render(tokenizer, before + template, [QUESTION], True)
    full = _render(tokenizer, before + template, [QUESTION, _answer()])
    if prompt is None or full is None or ANSWER not in full:
        raise BadInput(
            f"The chat template of {name} cannot render a question and its answer: {_reason(tokenizer, template)}.",
            "Name another one: model.chat_template=FILE.jinja",
        )
    _check_memory(tokenizer, before + template, name)
    prefix = _prefix(prompt, full)
    if thinking == "off" and _opens_thought(prompt + prefix):
        prefix += "\n</think>\n\n"
    baked = prefix if prefix.strip() and (thinking == "off" or not _thought(prefix)) else ""
    after = f"{{% if add_generation_prompt %}}{{{{ {baked!r} }}}}{{% endif %}}" if baked else ""
    tokenizer.chat_template = before + template + after
    return TemplateFacts(
        thinking=thinking if thinks or _thought(prefix) else "none",
        prefix=baked,
        end=_end(tokenizer, stops, name),
        system=has_system,
        alternating=alternating,
        default_system=_default_system(tokenizer, before + template) if has_system else "",
        dated=dated,
    )


def _check_memory(tokenizer: Any, template: str, name: str) -> None:
    """Raises BadInput if a template leaves out turns, or renders a conversation differently each time."""
    conversation = [_system(), QUESTION, _answer(), LATER]
    first, second = (_render(tokenizer, template, conversation, True) or "" for _ in range(2))
    lost = [turn["role"] for turn in conversation if turn["content"] not in first]
    if not lost and first == second:
        return
    why = "renders a conversation differently each time" if not lost else f"leaves out {' and '.join(lost)} turns"
    raise BadInput(f"The chat template of {name} {why}.", "Name another one: model.chat_template=FILE.jinja")


def _switches(tokenizer: Any, template: str) -> list[str]:
    """The variables that decide whether the model is asked to think."""

    def prompt(switch: str, value: str) -> str | None:
        return _render(tokenizer, f"{{% set {switch} = {value} %}}{template}", [QUESTION], True)

    return [switch for switch in THINKING_SWITCHES if prompt(switch, "true") != prompt(switch, "false")]


def _turns(tokenizer: Any, template: str) -> tuple[bool, bool, str]:
    """Whether a system message has a place of its own, whether turns have to alternate, and the lines before the
    template that change the turns accordingly."""
    has_system = SYSTEM in (_render(tokenizer, template, [_system(), QUESTION], True) or "")
    lines = "" if has_system else SYSTEM_IN_USER_TURN
    rows = [[QUESTION, QUESTION], [_answer(), QUESTION]]
    alternating = any(_render(tokenizer, lines + template, row, True) is None for row in rows)
    return has_system, alternating, lines + (ALTERNATING if alternating else "")


def opening(tokenizer: Any) -> str:
    """What the template writes between the prompt and a written answer, such as a space."""
    prompt = tokenizer.apply_chat_template([QUESTION], tokenize=False, add_generation_prompt=True)
    return _prefix(prompt, tokenizer.apply_chat_template([QUESTION, _answer()], tokenize=False))


def without_thought(text: str) -> str:
    """An answer without the thought before it; nothing of one that was cut off while it thought."""
    return text.rpartition("</think>")[2].partition("<think>")[0].strip()


def closing(tokenizer: Any) -> str:
    """What the template writes after an answer, at least up to the token that ends it."""
    rendered = tokenizer.apply_chat_template([QUESTION, _answer()], tokenize=False)
    after = rendered[rendered.rindex(ANSWER) + len(ANSWER) :]
    if _special(tokenizer, after):
        return after
    longer = tokenizer.apply_chat_template([QUESTION, _answer(), QUESTION], tokenize=False)
    following = longer[longer.index(ANSWER) + len(ANSWER) : longer.rindex(QUESTION["content"])]
    first = _special(tokenizer, following)
    return following[: following.index(first) + len(first)] if first else after


def _end(tokenizer: Any, stops: Sequence[int], name: str) -> str:
    """The token that ends an answer."""
    after = closing(tokenizer)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    ends = [token for token in ids if token in stops]
    end = tokenizer.decode(ends[:1]) if ends else _special(tokenizer, after)
    if not end:
        raise BadInput(
            f"In the chat template of {name} no token ends an answer, so the model could not learn to stop.",
            "Name a template that writes one after each answer: model.chat_template=FILE.jinja",
        )
    return end


def _special(tokenizer: Any, text: str) -> str:
    """The first special token in a text; empty if there is none."""
    places = [(text.index(token), -len(token), token) for token in _special_tokens(tokenizer) if token in text]
    return min(places)[2] if places else ""


def _special_tokens(tokenizer: Any) -> list[str]:
    """The tokens that no ordinary text is made of."""
    return [str(token) for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} if str(token).strip()]


def _answer() -> Message:
    return {"role": "assistant", "content": ANSWER}


def _system() -> Message:
    return {"role": "system", "content": SYSTEM}


def _prefix(prompt: str, full: str) -> str:
    """What stands between the generation prompt and a written answer; nothing where they begin differently."""
    return full[len(prompt) : full.index(ANSWER)] if full.startswith(prompt) else ""


def _opens_thought(text: str) -> bool:
    return text.rstrip().endswith("<think>")


def _thought(text: str) -> bool:
    return "think>" in text


def _default_system(tokenizer: Any, template: str) -> str:
    """The system message that the template writes where a conversation has none; empty for none."""
    plain = _render(tokenizer, template, [QUESTION]) or ""
    with_system = _render(tokenizer, template, [_system(), QUESTION]) or ""
    begins = plain[: plain.index(QUESTION["content"])] if QUESTION["content"] in plain else ""
    if SYSTEM not in with_system:
        return ""
    start = with_system.index(SYSTEM)
    before, rest = with_system[:start], with_system[start + len(SYSTEM) :]
    after = rest[: rest.index(QUESTION["content"])] if QUESTION["content"] in rest else ""
    if begins.startswith(before) and after and begins.endswith(after):
        return begins[len(before) : len(begins) - len(after)].strip()
    return ""


def _render(tokenizer: Any, template: str, messages: list[Message], generate: bool = False) -> str | None:
    """The text of a conversation; None where the template refuses it."""
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=generate
        )
    except Exception:  # a template can raise anything
        return None


def _reason(tokenizer: Any, template: str) -> str:
    try:
        tokenizer.apply_chat_template([QUESTION, _answer()], chat_template=template, tokenize=False)
    except Exception as error:
        return " ".join(str(error).split())[:120] or type(error).__name__
    return "the answer is not in the text"
