"""Characters of ElizaOS."""

from __future__ import annotations

from collections import Counter
from typing import Any

from moltlm.data.spec import Spec, Turn, traits_from
from moltlm.data.spec_formats import lists, macros, wording
from moltlm.data.spec_formats.macros import Cast
from moltlm.data.spec_formats.reading import Source, SpecReading, count_fields, text_of, texts_of, unique

KEPT = {
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
    own = record["name"].strip()
    name = source.name or own
    if not name:
        raise source.nameless()
    left_out = Counter[str]()
    bio, lore = _facts(record.get("bio")), _facts(record.get("lore"))
    language = wording.detect(" ".join([text_of(record.get("system")), *bio, *lore]))
    cast = Cast(name, language, left_out)

    def plain(values: list[str]) -> list[str]:
        return unique(macros.instruction(value, cast) for value in values)

    bio, lore = plain(bio), plain(lore)
    style = record.get("style")
    styles = style if isinstance(style, dict) else {"all": style}
    topics, adjectives = plain(texts_of(record.get("topics"))), plain(texts_of(record.get("adjectives")))
    posts = unique(macros.answer(text, cast) for text in texts_of(record.get("postExamples")))
    system = macros.instruction(text_of(record.get("system")), cast)
    count_fields(record, KEPT, left_out)
    count_fields(styles, {"all", "chat"}, left_out)
    knowledge = record.get("knowledge")
    known = plain([row for row in knowledge if isinstance(row, str)] if isinstance(knowledge, list) else [])
    left_out["knowledge"] += len(knowledge) - len(known) if isinstance(knowledge, list) else 0
    opening = "" if name in system.split("\n")[0] else language.you_are.format(name)
    prompt = [
        " ".join(filter(None, [opening, system])), *(_list(title, rows) for title, rows in (
            ("About you", bio), ("Your past", lore), ("What you know", known), ("What you talk about", topics))),
    ]  # fmt: skip
    traits = unique([*(lists.i_am(text, language) for text in adjectives), *bio])
    spec = Spec(
        name=name,
        summary=(bio or [system])[0][:300],
        system_prompt="\n\n".join(filter(None, prompt)) or language.you_are.format(name),
        voice=unique(
            [*plain([text for key in ("all", "chat") for text in texts_of(styles.get(key))])]
            + [f"Writes a post like this: {text}" for text in posts]
        ),
        traits=traits_from(traits or [language.i_am.format(name)]),
        dialogues=_dialogues(record.get("messageExamples"), {own.lower(), name.lower()}, cast),
        catchphrases=[name],
    )
    return SpecReading(spec, "ElizaOS character", +left_out)


def _facts(value: Any) -> list[str]:
    return [line for text in texts_of(value) for line in text.split("\n") if line.strip()]


def _list(title: str, rows: list[str]) -> str:
    return f"{title}:\n" + "\n".join(f"- {row}" for row in rows) if rows else ""


def _dialogues(value: Any, names: set[str], cast: Cast) -> list[list[Turn]]:
    """The examples: lists of messages by `name` or `user`, or objects that hold such a list."""
    dialogues = []
    for example in value if isinstance(value, list) else []:
        messages = example.get("examples") or example.get("messages") if isinstance(example, dict) else example
        turns: list[Turn] = []
        partner = ""
        for message in messages if isinstance(messages, list) else []:
            speaker, text = _message(message)
            role = "assistant" if speaker in names or speaker in ("{{agentname}}", "{{char}}", "{{agent}}") else "user"
            partner = partner or (speaker if role == "user" else "")
            if not text or (role == "user" and speaker != partner):
                cast.left_out["message without a text" if not text else "message of a third speaker"] += 1
                break
            clean = macros.answer(text, cast) if role == "assistant" else macros.question(text, cast)
            if not clean:
                break
            if turns and turns[-1].role == role:
                turns[-1] = Turn(role=role, content=f"{turns[-1].content}\n{clean}")
            else:
                turns.append(Turn(role=role, content=clean))
        if len(turns) > 1 and any(turn.role == "assistant" for turn in turns[1:]):
            dialogues.append(turns)
        else:
            cast.left_out["example without a question and an answer"] += 1
    return dialogues


def _message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        return "", ""
    content = message.get("content")
    text = text_of(content.get("text") if isinstance(content, dict) else content or message.get("text"))
    speaker = message.get("name") or message.get("user") or message.get("role")
    return (speaker.strip().lower() if isinstance(speaker, str) else ""), text
