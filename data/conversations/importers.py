"""Import conversations: from chat exports to clean exchanges, streamed, with a count of everything that is left out.

`sources` opens files, folders and archives, `formats` and `transcripts` read what they contain, `redact` removes what
must not be trained on, and `near` finds duplicates.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moltlm.data import forgotten
from moltlm.data.config import ImportConfig
from moltlm.data.conversations import doubtful, formats, marks, speakers, transcripts, voices
from moltlm.data.conversations.exchanges import Reading, drop_rejected
from moltlm.data.conversations.near import DuplicateIndex
from moltlm.data.conversations.pairing import paired
from moltlm.data.conversations.report import ImportReport
from moltlm.data.conversations.sources import HEAD, LIMIT, Source, head, is_json, json_lines, json_values, sources
from moltlm.data.conversations.turns import Conversation, FileReport, Turn
from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from moltlm.data.forgotten import Forgotten
from moltlm.data.types import EDITED, Exchange, Message

VERSION = 10
"""Raise it when the same files give other exchanges: artifacts made from conversations are then made anew."""

ANYBODY = Voice()

MACRO = "{{"
"""How a turn of a transcript begins whose speakers are `{{user}}` and `{{char}}`, and no JSON."""

ARRAY = re.compile(r"\[\s*(?:\[?\s*\{|\Z)")
"""How an array of objects begins, or of lists of objects."""


@dataclass(frozen=True)
class Job:
    """How to read, whose answers, and what is left out since it was forgotten."""

    config: ImportConfig
    voice: Voice
    forgotten: Forgotten


def read(paths: list[Path], config: ImportConfig, report: ImportReport, voice: Voice = ANYBODY) -> Iterator[Exchange]:
    """Read every assistant turn that follows a user turn, with up to `max_context_turns` turns before it.

    Files are read in sorted order, and their formats are detected from their content. Consecutive turns of one side are
    joined. An empty turn ends the context: the turns after it start without any. Memory holds one conversation of a
    JSON file at a time, or one turn of any other file.

    Args:
        paths: files, folders or zip archives.
        report: is filled while the exchanges are consumed.
        voice: what the persona is called. `config.assistant` takes its place.

    Raises:
        BadInput: naming file and place, for anything malformed; for a folder or archive without conversations; and for
            an unknown format, if the user named the file itself. In folders and archives such files are skipped and
            reported.
        UnknownPersona: if a file names its speakers, and nothing tells which of them is the persona.
    """
    voice = replace(voice, names=(config.assistant,)) if config.assistant else voice
    job = Job(config, voice, forgotten.load(config.forgotten))
    if not paths:
        raise BadInput("No conversations to read.", f"Name at least one of: {formats.SUPPORTED}.")
    with DuplicateIndex(config.near_duplicate) as index:
        for path in paths:
            before = report.conversations
            with sources(path, report.skipped.__setitem__) as files:
                for source in files:
                    yield from _file(source, job, report, index)
            if report.conversations == before:
                raise _nothing(path, report)


def spoken(paths: Iterable[Path], voice: Voice, skip: Callable[[str, str], None]) -> Iterator[tuple[str, list[Turn]]]:
    """The name of the file and all turns of every conversation, as they were said: by whomever, nothing redacted and
    nothing left out.

    Args:
        voice: what the persona is called.
        skip: called with the name of each file that cannot be read, and why.
    """
    for path in paths:
        with sources(path, skip) as files:
            for source in files:
                try:
                    for conversation in _conversations(source, FileReport(source.name), voice) or ():
                        yield source.name, list(conversation.turns)
                except BadInput as error:
                    skip(source.name, error.what)


def require_any(exchanges: Iterable[Exchange], report: ImportReport, paths: Iterable[object]) -> Iterator[Exchange]:
    """The exchanges. Raises BadInput, with the reasons, after the last one if there was none."""
    yield from exchanges
    if error := report.nothing_learned([str(path) for path in paths]):
        raise error


def _nothing(path: Path, report: ImportReport) -> BadInput:
    fix = next((fix for name, fix in report.fixes.items() if name.startswith(str(path))), "")
    what = f"No conversations in {path}.{report.passed_over(str(path))}"
    return BadInput(what, fix or f"Supported are: {formats.SUPPORTED}.")


def _file(source: Source, job: Job, report: ImportReport, index: DuplicateIndex) -> Iterator[Exchange]:
    """The exchanges of a file. One that the user did not name is passed over where it cannot be read."""
    try:
        yield from _read_file(source, job, report, index)
    except BadInput as error:
        if source.named:
            raise
        report.pass_over(source.name, error)


def _read_file(source: Source, job: Job, report: ImportReport, index: DuplicateIndex) -> Iterator[Exchange]:
    file = FileReport(source.name, disliked=source.disliked)
    conversations = _conversations(source, file, job.voice)
    if conversations is None:
        if source.named:
            raise _unknown(source)
        report.skipped[source.name] = "no known format"
        return
    report.files.append(file)
    steps = ((each, turn) for each in conversations for turn in _merged(each, source, job.voice, file))
    yield from paired(Reading(job.config, report, file, index, job.forgotten).exchanges(steps), file)


def _conversations(source: Source, file: FileReport, voice: Voice) -> Iterator[Conversation] | None:
    """The conversations of a file, whose format is detected from its beginning; None for an unknown format."""
    start = head(source)
    text = start.decode(errors="replace").replace("\r\n", "\n").lstrip()
    file.scales |= marks.scales(text)
    if text[:1] == "{" and not text.startswith(MACRO):
        return formats.conversations(_objects(source, text, len(start) < HEAD), source, file)
    if ARRAY.match(text):
        return formats.conversations(_arrays(source, text), source, file)
    format = next((each for each in formats.TEXTS if each.detect(text)), None)
    if format:
        file.format = format.name
        return format.read(source, file)
    style = speakers.style_of(text, voice, f"{source.name}: ")
    if style:
        return transcripts.conversations(style, source, file)
    if error := doubtful.error_for(source, text, voice):
        raise error
    return None


def _objects(source: Source, text: str, is_whole: bool) -> Iterator[tuple[str, Any]]:
    """The values of a file that begins with an object: JSONL if the first line is whole, be it with a comma after it,
    else JSON of several lines, or of several values in one line."""
    first, ended, _ = text.partition("\n")
    is_cut = not (ended or is_whole)
    return json_lines(source) if is_cut or is_json(first.rstrip().removesuffix(",")) else json_values(source)


def _arrays(source: Source, text: str) -> Iterator[tuple[str, Any]]:
    """The elements of an array; or a list of messages on each line."""
    first, _, rest = text.partition("\n")
    is_first_whole = ARRAY.match(rest.lstrip()) and is_json(first.rstrip().removesuffix(","))
    return json_lines(source) if is_first_whole else json_values(source)


def _unknown(source: Source) -> BadInput:
    text = " ".join(head(source).decode(errors="replace").split())
    beginning = f"It begins with: {text[:60]!r}" if text else "It is empty"
    return source.bad(f" holds no conversation of a known format. {beginning}.", f"Known are: {formats.SUPPORTED}.")


def _merged(conversation: Conversation, source: Source, voice: Voice, file: FileReport) -> Iterator[Turn]:
    """Join consecutive turns of one side, with a blank line between them.

    Raises:
        BadInput: for a turn over LIMIT.
        UnknownPersona: if the speakers are only named, and none of the names tells the persona.
    """

    def fail(what: str) -> BadInput:
        return source.bad(f", {conversation.place}: {what}")

    turns = voices.assign(conversation.turns, voice, file, fail, conversation.by_name)
    for run in voices.runs(turns, file):
        first, role = run[0], "user" if run[0].role == "user" else "assistant"
        if len(run) == 1 and len(first.text) <= LIMIT:
            yield first
            continue
        file.noise[f"{role} turn joined to the one before"] += len(run) - 1
        if sum(len(turn.text) for turn in run) > LIMIT:
            raise fail(f"one turn is larger than {LIMIT >> 20} MiB.")
        for turn in run:
            drop_rejected(turn, file)
        text = "\n\n".join(filter(None, (turn.text.strip() for turn in run)))
        yield first._replace(text=text, noisy=any(turn.noisy for turn in run), rejected="")


def write(exchanges: Iterable[Exchange], path: Path) -> int:
    """Write exchanges as JSONL with `messages`, one a line; those with a rejected answer as TRL's preference rows.

    Answers in the context have `"weight": 0`, as in OpenAI's fine-tuning format, and are not learned. Reading the file
    with the same configuration gives the same exchanges. The exchanges are streamed, and the file appears only once it
    is complete.

    Returns:
        The number of exchanges.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    count, texts = 0, dict[str, str]()
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            for exchange in exchanges:
                line, texts = _line(exchange, texts)
                out.write(line)
                count += 1
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


_in_json = json.JSONEncoder(ensure_ascii=False).encode


def _line(exchange: Exchange, before: dict[str, str]) -> tuple[str, dict[str, str]]:
    """`message_row` as a line of JSON, and the JSON of each text in it.

    Args:
        before: the JSON of the texts of the row before, most of which are in this one too.
    """
    if exchange.rejected or any(len(turn) != 2 for turn in exchange.prompt):
        return _in_json(message_row(exchange)) + "\n", {}
    answer: Message = {"role": "assistant", "content": exchange.answer}
    texts = {
        text: before.get(text) or _in_json(text) for text in (turn["content"] for turn in (*exchange.prompt, answer))
    }
    turns = [
        f'{{"role": {_in_json(turn["role"])}, "content": {texts[turn["content"]]}'
        + (', "weight": 0}' if turn["role"] == "assistant" and turn is not answer else "}")
        for turn in (*exchange.prompt, answer)
    ]
    labels = "".join(f", {_in_json(key)}: {_in_json(value)}" for key, value in _labels(exchange).items())
    return f'{{"messages": [{", ".join(turns)}]{labels}}}\n', texts


def _labels(exchange: Exchange) -> dict[str, str]:
    return {key: value for key in ("source", "topic", "trait") if (value := getattr(exchange, key))}


def message_row(exchange: Exchange) -> dict[str, Any]:
    """A row of messages, or TRL's preference row where there is a rejected answer; `provenance` marks a correction."""
    labels = _labels(exchange)
    if exchange.rejected:
        labels |= {"provenance": EDITED} if exchange.is_correction else {}
        sides = {"chosen": exchange.answer, "rejected": exchange.rejected}
        rows = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
        return {"prompt": exchange.prompt, **rows, **labels}
    context = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in exchange.prompt]
    return {"messages": [*context, {"role": "assistant", "content": exchange.answer}], **labels}
