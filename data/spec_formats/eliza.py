"""Characters of ElizaOS."""

from __future__ import annotations

from collections import Counter
from typing import Any

from moltlm.data.spec import Spec, Turn, traits_from
from moltlm.data.spec_formats import lists, macros, wording
from moltlm.data.spec_formats.macros import Cast
from moltlm.data.spec_formats.reading import LeftOut, Source, SpecReading, count_fields, text_of, texts_of, unique

FIELDS = {
    "name",
    "system",
    "bio",
    "lore",
    "messageExamples",
    "postExamples",
    "topics",
    "style",
    "adjectives",
    "knowledge",
}
AGENT = ("{{agentname}}", "{{char}}", "{{agent}}")


def is_character(record: dict[str, Any]) -> bool:
    """Whether an object is a character file of ElizaOS: a name and a bio, a style or examples of messages."""
    if not isinstance(record.get("name"), str):
        return False
    return isinstance(record.get("messageExamples"), list) or (
        "bio" in record
        and not {"style", "adjectives", "lore", "topics", "system", "modelProvider", "plugins"}.isdisjoint(record)
    )


def read(source: Source, record: dict[str, Any]) -> SpecReading:
    """Read a character: its bio, lore, style, adjectives, topics and examples. Settings and secrets are never kept."""
    name = source.name or text_of(record["name"])
    if not name:
        raise source.nameless()
    left_out: LeftOut = Counter()
    language = wording.detect(" ".join(text_of(record.get(key), " ") for key in ("system", "bio", "lore")))
    cast = Cast(name, language, left_out)
    bio = _plain(_lines(record.get("bio")), cast)
    adjectives = [lists.i_am(text, language) for text in _plain(texts_of(record.get("adjectives")), cast)]
    count_fields(record, FIELDS, left_out)
    prompt = _prompt(record, bio, cast)
    spec = Spec(
        name=name,
        summary=(bio or [prompt])[0][:300],
        system_prompt=prompt,
        voice=_voice(record, cast),
        traits=traits_from(unique([*adjectives, *bio]) or [language.i_am.format(name)]),
        dialogues=_dialogues(record.get("messageExamples"), {text_of(record["name"]).lower(), name.lower()}, cast),
        catchphrases=[name],
    )
    return SpecReading(spec, "ElizaOS character", +left_out, (text_of(record["name"]),))


def _prompt(record: dict[str, Any], bio: list[str], cast: Cast) -> str:
    system = macros.instruction(text_of(record.get("system")), cast)
    knowledge = record.get("knowledge")
    rows = knowledge if isinstance(knowledge, list) else []
    texts = [row for row in rows if isinstance(row, str)]
    cast.left_out["knowledge"] += len(rows) - len(texts)
    parts = (
        ("About you", bio),
        ("Your past", _plain(_lines(record.get("lore")), cast)),
        ("What you know", _plain(texts, cast)),
        ("What you talk about", _plain(texts_of(record.get("topics")), cast)),
    )
    opening = "" if cast.character in system.split("\n")[0] else cast.wording.you_are.format(cast.character)
    return "\n\n".join(filter(None, [" ".join(filter(None, [opening, system])), *(_list(*part) for part in parts)]))


def _voice(record: dict[str, Any], cast: Cast) -> list[str]:
    """The style of everything and of chats; what is for posts alone is left out, but for the posts themselves."""
    style = record.get("style")
    styles = style if isinstance(style, dict) else {"all": style}
    count_fields({f"style.{key}": value for key, value in styles.items()}, {"style.all", "style.chat"}, cast.left_out)
    rules = [text for key in ("all", "chat") for text in texts_of(styles.get(key))]
    posts = [macros.answer(text, cast) for text in texts_of(record.get("postExamples"))]
    return unique([*_plain(rules, cast), *(f"Writes a post like this: {text}" for text in posts if text)])


def _plain(texts: list[str], cast: Cast) -> list[str]:
    return unique(macros.instruction(text, cast) for text in texts)


def _lines(value: Any) -> list[str]:
    return [line for text in texts_of(value) for line in text.split("\n") if line.strip()]


def _list(title: str, rows: list[str]) -> str:
    return f"{title}:\n" + "\n".join(f"- {row}" for row in rows) if rows else ""


def _dialogues(value: Any, names: set[str], cast: Cast) -> list[list[Turn]]:
    """The examples: lists of messages, or objects that hold such a list."""
    dialogues = []
    for example in value if isinstance(value, list) else []:
        messages = (example.get("examples") or example.get("messages")) if isinstance(example, dict) else example
        turns = _turns(messages if isinstance(messages, list) else [], names, cast)
        if any(turn.role == "assistant" for turn in turns[1:]):
            dialogues.append(turns)
        else:
            cast.left_out["example without a question and an answer"] += 1
    return dialogues


def _turns(messages: list[Any], names: set[str], cast: Cast) -> list[Turn]:
    """The messages of the character and of the first other speaker, up to one that is empty or of a third speaker."""
    turns: list[Turn] = []
    partner = ""
    for message in messages:
        speaker, text = _message(message)
        is_answer = speaker in names or speaker in AGENT
        partner = partner or ("" if is_answer else speaker)
        clean = macros.answer(text, cast) if is_answer else macros.question(text, cast)
        if not clean or (not is_answer and speaker != partner):
            cast.left_out["message without a text" if not clean else "message of a third speaker"] += 1
            break
        role = "assistant" if is_answer else "user"
        if turns and turns[-1].role == role:
            turns[-1] = Turn(role=role, content=f"{turns[-1].content}\n{clean}")
        else:
            turns.append(Turn(role=role, content=clean))
    return turns


def _message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        return "", ""
    content = message.get("content")
    text = text_of(content.get("text") if isinstance(content, dict) else content or message.get("text"))
    speaker = message.get("name") or message.get("user") or message.get("role")
    return (speaker.strip().lower() if isinstance(speaker, str) else ""), text
