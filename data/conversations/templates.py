"""Files, and rows with a `text`, in the chat template of a model: ChatML, Llama 3, Gemma, Zephyr and Mistral."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from moltlm.data.conversations.format import Format, TextFormat
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.sources import LIMIT, lines
from moltlm.data.conversations.turns import ROLES, Conversation, Fail, FileReport, Record, Turn, turn_of
from moltlm.data.errors import BadInput


class Template(NamedTuple):
    """How a turn begins, with its role, and what ends it."""

    begins: re.Pattern[str]
    ends: re.Pattern[str]


def _template(begins: str, ends: str) -> Template:
    return Template(re.compile(begins, re.MULTILINE), re.compile(ends))


TEMPLATES = (
    _template(
        r"<\|start\|>[ \t]*(?P<role>[\w-]{1,30})(?:<\|channel\|>(?P<channel>\w{1,20}))?[^<\n]{0,60}<\|message\|>",
        r"<\|end\|>|<\|return\|>|<\|call\|>",
    ),
    _template(
        r"(?:<[|｜]begin[▁_]of[▁_]sentence[|｜]>)?<[|｜](?P<role>User|Assistant)[|｜]>",
        r"<[|｜]end[▁_]of[▁_]sentence[|｜]>",
    ),
    _template(
        r"(?:<BOS_TOKEN>)?<\|START_OF_TURN_TOKEN\|><\|(?P<role>SYSTEM|USER|CHATBOT)_TOKEN\|>",
        r"<\|END_OF_TURN_TOKEN\|>",
    ),
    _template(
        r"(?:<\|begin_of_text\|>)?<\|header_start\|>[ \t]*(?P<role>[\w-]{1,30})<\|header_end\|>\s*", r"<\|eot\|>"
    ),
    _template(r"^### ?(?P<role>Instruction|Input|Response):[ \t]*(?:\n|$)", r"</s>|<\|endoftext\|>"),
    _template(
        r"<\|im_start\|>[ \t]*(?P<role>[\w-]{1,30})(?: name=(?P<name>[^\n<]{1,40}))?[ \t]*(?:\n|$)", r"<\|im_end\|>"
    ),
    _template(
        r"(?:<\|begin_of_text\|>)?<\|start_header_id\|>[ \t]*(?P<role>[\w-]{1,30})[ \t]*<\|end_header_id\|>\s*",
        r"<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>",
    ),
    _template(r"(?:<bos>)?<start_of_turn>[ \t]*(?P<role>[\w-]{1,30})[ \t]*(?:\n|$)", r"<end_of_turn>|<eos>"),
    _template(r"<\|(?P<role>system|user|assistant|model)\|>[ \t]*(?:\n|$)?", r"<\|end\|>|</s>|<\|endoftext\|>"),
    _template(r"(?:<s>)?\s?(?P<role>\[INST\]|\[/INST\])\s?", r"</s>"),
)
INSTRUCTION = {
    "[inst]": "user",
    "[/inst]": "assistant",
    "instruction": "user",
    "input": "user",
    "response": "assistant",
}
ROW_TEMPLATES = (
    _template(r"\s?### ?(?P<role>Human|Assistant|User|System): ?", r"</s>|<\|endoftext\|>"),
    _template(r"(?:\A|(?<=\s)|(?<=</s>))(?P<role>USER|ASSISTANT): ", r"</s>|<\|endoftext\|>"),
)
"""How a turn begins within the `text` of a row (Guanaco, Vicuna). In a file these are the speakers of a transcript."""
PREAMBLE = re.compile(
    r"\s*(?:<[|｜]begin[▁_]of[▁_]sentence[|｜]>|Below is an instruction|A chat between)[^\n<]{0,2000}?"
    r"(?=<[|｜]User|\n+### ?Instruction:|(?<=\s)USER: )",
    re.DOTALL,
)
"""What comes before the first turn: a system prompt without a mark, or the first sentence of Alpaca's prompts."""
HUMAN_ASSISTANT = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?", re.IGNORECASE)
HUMAN_ASSISTANT_LINES = re.compile(r"(?:\A\s*|\n)(Human|Assistant):[ ]?", re.IGNORECASE)
STRAY = re.compile(r"<\|(?:endoftext|begin_of_text|end_of_text)\|>|</?s>|<bos>|<eos>")
SYSTEM = re.compile(r"<<SYS>>.*?(?:<</SYS>>|\Z)\s*", re.DOTALL)


def template_of(text: str, of_row: bool = False) -> Template | None:
    """The template of a text that begins with a turn, of at most a few characters before it.

    Args:
        of_row: the text stands in a row of a data set.
    """
    head = _without_preamble(text[:3000].replace("\r\n", "\n")).lstrip()
    return next((each for each in (*TEMPLATES, *(ROW_TEMPLATES if of_row else ())) if each.begins.match(head)), None)


def _without_preamble(text: str) -> str:
    match = PREAMBLE.match(text)
    return text[match.end() :].lstrip("\n") if match else text


def _turns(template: Template, text: str, report: FileReport, fail: Fail) -> Iterator[Turn]:
    text = _without_preamble(text.replace("\r\n", "\n"))
    begun = list(template.begins.finditer(text))
    ends = [match.start() for match in begun[1:]] + [len(text)]
    for match, end in zip(begun, ends, strict=True):
        closed = template.ends.search(text, match.end(), end)
        content = STRAY.sub("", text[match.end() : closed.start() if closed else end]).strip()
        label = match["role"]
        role = INSTRUCTION.get(label.lower()) or ROLES.get(label.lower(), "")
        if role == "user" and "<<SYS>>" in content:
            content, count = SYSTEM.subn("", content)
            report.noise["system message"] += count
        if "channel" in match.re.groupindex and match["channel"] in ("analysis", "commentary"):
            report.noise["thinking"] += 1
            continue
        if role == "assistant" and "name" in match.re.groupindex and match["name"]:
            role, label = "", match["name"].strip()  # one of several characters
        if role == "assistant" and not content and match is begun[-1]:
            continue  # the place where a model is to answer
        for turn in turn_of(role, content, report, fail):
            yield turn if role else turn._replace(speaker=label)


def messages(text: str) -> list[Record] | None:
    """The messages of a text in a chat template, or in the form of HH-RLHF; None for another text."""
    text = text.replace("\r\n", "\n")
    if turns := _human_assistant(text):
        return turns
    template = template_of(text)
    if template is None:
        return None
    turns = _turns(template, text, FileReport(""), lambda what: BadInput(what, ""))
    return [{"role": turn.role or turn.speaker, "content": turn.text} for turn in turns if turn.text] or None


def _human_assistant(text: str) -> list[Record] | None:
    """The messages of a text in the form of HH-RLHF (`\n\nHuman: ...\n\nAssistant: ...`), or None."""
    start = HUMAN_ASSISTANT.match(text)
    if start is None or start[1].lower() != "human":
        return None
    parts = HUMAN_ASSISTANT.split(text)[1:]
    if len(parts) == 2:
        parts = HUMAN_ASSISTANT_LINES.split(text)[1:]
    roles = {"human": "user", "assistant": "assistant"}
    turns = [{"role": roles[name.lower()], "content": text} for name, text in zip(parts[::2], parts[1::2], strict=True)]
    return turns[:-1] if turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip() else turns


def _conversation(texts: Iterable[str], template: Template, source: Source, report: FileReport) -> Iterator[Turn]:
    for text in texts:
        yield from _turns(template, text, report, lambda what: source.bad(f": {what}"))


def _read(source: Source, report: FileReport) -> Iterator[Conversation]:
    """The conversations of a text: each begins with a system message, an `<|endoftext|>`, or the file."""
    template, pending, size, has_turns = None, list[str](), 0, False
    for number, line in lines(source):
        template = template or template_of(line)
        labels = [role["role"].lower() for role in template.begins.finditer(line)] if template else []
        label = next((each for each in labels if each != "system"), labels[0] if labels else "")
        label = labels[0] if has_turns and labels else label
        if has_turns and template and (label == "system" or line.strip() == "<|endoftext|>"):
            yield _whole(template, pending, source, report)
            pending, size, has_turns = [], 0, False
        has_turns = has_turns or bool(label and label != "system")
        pending.append(line)
        size += len(line)
        if size > LIMIT:
            raise source.bad(f", line {number}: one conversation is larger than {LIMIT >> 20} MiB.")
    if template and has_turns:
        yield _whole(template, pending, source, report)


def _whole(template: Template, pending: list[str], source: Source, report: FileReport) -> Conversation:
    report.conversations += 1
    return Conversation("the text", _conversation(["\n".join(pending)], template, source, report), source.stem)


def _is_row(record: Record) -> bool:
    return (
        isinstance(record.get("text"), str)
        and "role" not in record
        and template_of(record["text"], of_row=True) is not None
    )


def _row(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    text = record.get("text")
    template = template_of(text, of_row=True) if isinstance(text, str) else None
    if template is None or not isinstance(text, str):
        raise fail("`text` does not begin with a turn of a chat template.")
    yield from _turns(template, text, report, fail)


TEMPLATE = TextFormat("chat template", "texts in ChatML (<|im_start|>)", lambda text: bool(template_of(text)), _read)
ROWS = Format("chat template", "JSONL with a `text` in ChatML", _is_row, _row, labelled=True)
