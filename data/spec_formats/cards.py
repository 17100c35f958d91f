"""Character cards V1 (Tavern, Pygmalion), V2 and V3, and the exports that hold the same fields under other names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from moltlm.data.spec import Spec, Trait, traits_from
from moltlm.data.spec_formats import examples, lists, lore, macros, wording
from moltlm.data.spec_formats.examples import Examples
from moltlm.data.spec_formats.lore import Lore
from moltlm.data.spec_formats.macros import Cast
from moltlm.data.spec_formats.reading import LeftOut, Source, SpecReading, count_fields, text_of, texts_of, unique

FIELDS: dict[str, tuple[str, ...]] = {
    "name": ("name", "char_name", "bot_name", "participant__name", "displayName", "aiName", "aiDisplayName"),
    "nickname": ("nickname",),
    "system_prompt": ("system_prompt", "systemPrompt", "main_prompt", "basePrompt"),
    "description": ("description", "char_persona", "bot_description", "persona", "aiPersona"),
    "personality": ("personality", "tavern_personality"),
    "scenario": ("scenario", "world_scenario"),
    "first_mes": ("first_mes", "char_greeting", "first_message", "firstMessage", "greeting", "bot_greeting"),
    "alternate_greetings": ("alternate_greetings", "alternateGreetings", "first_messages", "greetings"),
    "mes_example": (
        "mes_example", "example_dialogue", "example_dialogs", "example_dialogues", "exampleDialogue", "sampleChat",
        "bot_definitions", "definition", "customDialogue",
    ),
    "post_history_instructions": ("post_history_instructions", "postHistoryInstructions"),
    "creator_notes": ("creator_notes", "creatorcomment"),
}  # fmt: skip
"""The fields of a card, and the names under which tools write them."""
SIGNATURE = {name for key, names in FIELDS.items() if key not in ("name", "nickname", "description") for name in names}
NAMES = {name for names in FIELDS.values() for name in names}
IGNORED = {"spec", "spec_version", "data", "chat", "create_date", "creation_date", "modification_date", *lore.BOOKS}
"""Fields that say nothing about the character, and the lorebooks, which are counted by entry."""
PLAIN = {*NAMES, *IGNORED, "avatar", "tags", "creator", "extensions", "character_version", "metadata", "id"}


SIGN = re.compile(r"^#\{(char|user)(?:acter)?\}(?=:)", re.MULTILINE)
"""How Backyard writes the speaker of an example (`#{user}: Dead?`)."""
LINK = re.compile(r"https?://\S+")


def is_card(record: dict[str, Any]) -> bool:
    """Whether an object is a card: by its `spec`, by a field that only cards have, or because it has no other field."""
    if str(record.get("spec", "")).startswith("chara_card") or isinstance(record.get("data"), dict):
        return str(record.get("spec", "chara_card")).startswith("chara_card")
    name = any(isinstance(record.get(key), str) for key in FIELDS["name"])
    signed = any(isinstance(record.get(key), str | list) for key in SIGNATURE)
    return name and (signed or ("description" in record and set(record) <= PLAIN))


def read(source: Source, record: dict[str, Any], format: str = "") -> SpecReading:
    """Read a card: V1, V2 (malfoyslastname/character-card-spec-v2) or V3 (kwaroran/character-card-spec-v3).

    Raises:
        BadInput: if it has no name, or says nothing of the character.
    """
    inner = record.get("data")
    data = {**record, **{key: value for key, value in inner.items() if value}} if isinstance(inner, dict) else record
    fields = {key: _field(data, names) for key, names in FIELDS.items()}
    name = source.name or fields["name"]
    if not name:
        raise source.bad(
            " is a card without a name: no character card with a name.", f"Give it: {source.command(name='NAME')}"
        )
    if not any(fields[key] for key in fields if key not in ("name", "nickname", "creator_notes")):
        raise source.bad(
            f" is a card of {name} that says nothing of the character: description, personality, greeting and examples "
            "are empty.",
            f"Write the description: {source.edit()}",
        )
    prose, talk = examples.split(fields["description"])
    if examples.is_dialogue(talk):  # a character that is described by an interview
        fields |= {"description": prose.strip(), "mes_example": f"{talk}\n<START>\n{fields['mes_example']}"}
    card = _Card(source, data, fields, name)
    return SpecReading(card.spec(), format or _version(record), +card.left_out, tuple(card.names[1:]))


def _field(data: dict[str, Any], names: Iterable[str]) -> str:
    for name in names:
        if text := text_of(data.get(name), ", " if name == "personality" else "\n"):
            return text
    return ""


def _version(record: dict[str, Any]) -> str:
    if "char_name" in record:
        return "character card V1 (Pygmalion)"
    version = str(record.get("spec", ""))[-2:].upper()
    return f"character card {version if version in ('V2', 'V3') else 'V1'}"


class _Card:
    """One card being read: its fields as text, who its macros mean, and what was left out."""

    def __init__(self, source: Source, data: dict[str, Any], fields: dict[str, str], name: str) -> None:
        self.data, self.fields, self.name = data, fields, name
        self.left_out: LeftOut = Counter()
        self.traits: list[str] = []
        prose = " ".join(fields[key] for key in ("description", "personality", "mes_example", "first_mes"))
        language = wording.detect(LINK.sub("", macros.without_html(macros.PICTURE.sub("", prose))))
        self.cast = Cast(source.name or fields["nickname"] or name, language, self.left_out)
        first = fields["name"].split()[:1]
        first = (
            first
            if first and len(first[0]) > 2 and first[0].lower() not in ("the", "old", "dr.", "mr.", "mrs.")
            else []
        )
        self.names = unique([name, fields["nickname"], fields["name"], *first])

    def spec(self) -> Spec:
        book = lore.read(self.data, self.cast)
        defined = any(text_of(self.data.get(key)) for key in ("definition", "bot_definitions"))
        talk = examples.read(
            _marked(self.data, self.fields["mes_example"]), {name.lower() for name in self.names}, self.cast
        )
        self._count(talk)
        if defined:  # Character.AI: the definition describes the character between its examples
            book.always, talk.prose = [*talk.prose, *book.always], []
        traits = self._traits()
        return Spec(
            name=self.name,
            summary=self._summary(),
            system_prompt=self._prompt(book),
            voice=self._voice(talk),
            traits=traits,
            facts={**self._nickname(), **book.keyed},
            dialogues=talk.dialogues,
            catchphrases=unique([self.name, self.fields["nickname"]]),
        )

    def _text(self, key: str) -> str:
        return macros.instruction(self.fields[key], self.cast)

    def _uncounted(self, key: str, certain: bool = False) -> str:
        """A field that is part of the prompt, where its macros are counted."""
        return macros.instruction(self.fields[key], replace(self.cast, left_out=Counter()), certain)

    def _nickname(self) -> dict[str, str]:
        return {"nickname": self.fields["nickname"]} if self.fields["nickname"] else {}

    def _prompt(self, book: Lore) -> str:
        parts = [self._text(key) for key in ("system_prompt", "description", "personality", "scenario")]
        parts += [
            *book.always,
            macros.instruction(_depth_prompt(self.data), self.cast),
            self._text("post_history_instructions"),
        ]
        prompt = "\n\n".join(unique(parts))
        if self.name in prompt.split("\n")[0] and re.search(r"\byou are\b", prompt, re.IGNORECASE):
            return prompt
        return "\n\n".join(filter(None, [self.cast.wording.you_are.format(self.name), prompt]))

    def _voice(self, talk: Examples) -> list[str]:
        greetings = unique([self.fields["first_mes"], *texts_of(self.data.get("alternate_greetings"))])
        greetings += [text for key in FIELDS["alternate_greetings"][1:] for text in texts_of(self.data.get(key))]
        openings = [text for each in unique(greetings) if (text := macros.answer(each, self.cast))]
        return unique(
            [
                *(f"Opens a conversation like this: {text}" for text in openings),
                *(f"Talks like this: {text}" for text in talk.prose),
            ]
        )

    def _traits(self) -> list[Trait]:
        texts = (self._uncounted("personality", certain=True), self._uncounted("description", certain=True))
        sentences = unique(lists.traits_of(*texts, self.names, self.cast.wording)) if any(texts) else []
        self.traits = sentences
        return traits_from(sentences[:TRAITS] or [self.cast.wording.i_am.format(self.name)])

    def _summary(self) -> str:
        text = self._uncounted("description") or self._uncounted("personality")
        lines = text.split("\n")
        sentence = next((line for line in lines if re.search(r"[.!?。]$", line)), "")
        return (sentence or (" ".join(self.traits[:3]) if lines[0].startswith("[") else lines[0]))[:300]

    def _count(self, talk: Examples) -> None:
        # a note of the author to those who download the card, not about the character
        self.left_out["creator_notes"] += bool(self.fields["creator_notes"])
        self.left_out["line of a third speaker in an example"] += talk.others
        short = [text for text in talk.prose if not lists.says_enough(text)]
        self.left_out["example of a single word"] += len(short)
        talk.prose = [text for text in talk.prose if lists.says_enough(text)]
        count_fields(self.data, NAMES | IGNORED | {"extensions"}, self.left_out)
        extensions = self.data.get("extensions")
        count_fields(extensions if isinstance(extensions, dict) else {}, {"depth_prompt"}, self.left_out)


TRAITS = 60
"""The most traits that are made of a card's words."""


def _depth_prompt(data: dict[str, Any]) -> str:
    """The instruction that a frontend puts among the last messages (SillyTavern's extension, Agnai's `insert`)."""
    extensions = data.get("extensions")
    holder = extensions if isinstance(extensions, dict) else {}
    for value in (holder.get("depth_prompt"), data.get("depth_prompt"), data.get("insert")):
        text = value.get("prompt") if isinstance(value, dict) else value
        if isinstance(text, str) and text.strip():
            return text
    return ""


def _marked(data: dict[str, Any], text: str) -> str:
    """The examples as one text; those in a list are separate dialogues."""
    for name in FIELDS["mes_example"]:
        if isinstance(data.get(name), list):
            return "\n<START>\n".join(texts_of(data[name]))
    return SIGN.sub(r"{{\1}}", text)
