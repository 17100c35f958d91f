"""SOUL.md, IDENTITY.md and other Markdown or plain text: headings and labels say what a bullet, row or paragraph is."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.spec import IDENTITY, Spec, traits_from
from moltlm.data.spec_formats import blocks, examples, headings, lists, macros, names, wording
from moltlm.data.spec_formats.headings import is_placeholder, kind_of
from moltlm.data.spec_formats.macros import Cast
from moltlm.data.spec_formats.reading import LeftOut, Source, SpecReading, text_of, texts_of, unique

TRAITS = 100
"""The most bullets that are taken as traits; all of them stay in the system prompt."""
IMPERATIVE_NO = re.compile(
    r"(?:never|don'?t|do not|avoid|refuse|nie(?:mals)?|niemals|kein\w*|nunca|jam[aá]s|no (?=\w+s\b)"
    r"|ne\b.{0,40}\b(?:pas|jamais)|non\b.{0,40}\bmai|n[ãa]o (?=\w+e\b))\b|不要|绝不|絕不|永不|禁止|决不",
    re.IGNORECASE,
)
"""How a sentence begins that forbids something."""
HINT = re.compile(r"[_*(]{1,3}(?:fill|edit|update|replace|delete)\b.*[_*)]", re.IGNORECASE | re.DOTALL)
"""What a template tells those who fill it in."""
ABOUT_FILE = re.compile(
    r"\b(?:this file|these files|diese datei|diese dateien|este archivo|estos archivos|ce fichier|ces fichiers"
    r"|este arquivo|questo file)\b",
    re.IGNORECASE,
)


@dataclass
class Content:
    """What the sections hold, by kind. `labelled`: facts under no known heading, which may be traits."""

    facts: dict[str, str] = field(default_factory=dict)
    labelled: list[str] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=lambda: {key: [] for key in (*headings.KINDS, "")})
    talk: list[str] = field(default_factory=list)
    title: str = ""
    summary: str = ""
    unfilled: list[str] = field(default_factory=list)


def read(source: Source, files: dict[str, str]) -> SpecReading:
    """Read Markdown files as one spec. The whole text, without front matter and comments, is the system prompt.

    Raises:
        BadInput: if there is no text, nobody is named, or the name or the traits of a template were not filled in.
    """
    left_out: LeftOut = Counter()
    parts, matter = [], {}
    for text in files.values():
        body, fields = blocks.front_matter(text.replace("\r\n", "\n").replace("\r", "\n"))
        matter |= fields
        parts.append(blocks.without_comments(body, left_out).strip())
    whole = "\n\n".join(filter(None, parts))
    if not whole and not matter:
        raise source.bad(" is empty.", f"Write who it is: {source.edit()}")
    content = _content(whole, left_out)
    _add_matter(content, matter, left_out)
    name = _name(source, content, whole, files)
    spec = _spec(source, name, content, whole, left_out)
    return SpecReading(spec, "Markdown", +left_out, (_stated_name(content, whole),))


def name_in(text: str) -> str:
    """The name that a text of instructions gives: in a label, its title, or "You are NAME"; "" if none."""
    content = _content(blocks.without_comments(text, Counter()), Counter())
    return _stated_name(content, text)


def _spec(source: Source, name: str, content: Content, whole: str, left_out: LeftOut) -> Spec:
    cast = Cast(name, wording.detect(whole), left_out)
    if "name" in content.facts:
        content.facts["name"] = name
    facts = {key: value for key, value in content.facts.items() if value and not is_placeholder(value)}
    talk = (
        examples.read("\n".join(content.talk), {name.lower(), name.split()[0].lower()}, cast)
        if content.talk
        else examples.Examples()
    )
    groups = {key: unique(items) for key, items in content.lists.items()}
    chosen = next(
        (
            group
            for group in (groups["traits"], unique(content.labelled), groups[""], groups["values"], groups["voice"])
            if group
        ),
        [],
    )
    if chosen is groups[""]:
        chosen = _prose(chosen, groups, name, cast)
    if not chosen and content.unfilled:
        raise source.bad(
            f" is an unfilled template: {content.unfilled[0]!r} stands where a trait should.",
            f"Fill in the traits: {source.edit()}",
        )
    if not (chosen or talk.dialogues or talk.prose or facts or any(groups.values())):
        raise source.bad(" holds no text that describes a persona.", f"Write who it is: {source.edit()}")
    left_out["bullet that is no trait of its own (it stays in the system prompt)"] += max(0, len(chosen) - TRAITS)
    traits = traits_from(chosen[:TRAITS] or [cast.wording.i_am.format(name)])
    return Spec(
        name=name,
        summary=(content.summary or next(iter(groups[""]), traits[0].text))[:300],
        system_prompt=macros.instruction(blocks.filled(whole), cast) or cast.wording.you_are.format(name),
        voice=unique(
            [
                *groups["voice"],
                *([facts["vibe"]] if "vibe" in facts else []),
                *(f"Talks like this: {text}" for text in talk.prose),
            ]
        ),
        traits=traits,
        values=groups["values"],
        boundaries=groups["boundaries"],
        facts=facts,
        dialogues=talk.dialogues,
        catchphrases=[name],
    )


def _prose(paragraphs: list[str], groups: dict[str, list[str]], name: str, cast: Cast) -> list[str]:
    """The sentences of paragraphs as traits; those that forbid something are put with the boundaries."""
    paragraphs = [text for text in paragraphs if not text.endswith((":", "："))]
    sentences = [part for text in paragraphs for part in lists.sentences_about(text, [name], cast.wording) or [text]]
    groups["boundaries"] = unique([*groups["boundaries"], *filter(IMPERATIVE_NO.match, sentences)])
    return unique(text for text in sentences if not IMPERATIVE_NO.match(text)) or unique(paragraphs)


def _content(text: str, left_out: LeftOut) -> Content:
    content = Content()
    for section in blocks.sections(text, left_out):
        if section.level == 1 and not content.title:
            content.title = names.in_title(section.heading)
        if section.kind == "examples":
            content.talk += [*section.lines, "<START>"]
            continue
        for item in section.items:
            _add_item(content, section.kind, item, left_out)
    return content


def _add_item(content: Content, kind: str, item: str, left_out: LeftOut) -> None:
    """Put an item where its label, or else its section, says."""
    plain = blocks.plain(item)
    label = blocks.labelled(item)
    key = label.group(1).strip(" :：").lower() if label else ""
    value = blocks.plain(label.group(2)) if label else ""
    if headings.is_name_label(key) and kind in ("", "traits", "background"):
        content.facts.setdefault("name", value)
    elif is_placeholder(value if key else plain):
        content.unfilled.append(plain[:60])
        left_out["unfilled line of a template"] += 1
    elif HINT.fullmatch(item.strip()) or ABOUT_FILE.search(plain):
        left_out["line about the file (it stays in the system prompt)"] += 1
    elif labelled := _kind_of_label(kind, key, item, value):
        content.lists[labelled] += _label_items(labelled, value, plain)
    elif _is_fact(key, value, item) and (not kind or key in IDENTITY):
        content.facts[key] = value
        content.labelled += [] if key in IDENTITY else [plain]
    else:
        content.lists["boundaries" if not kind and IMPERATIVE_NO.match(plain) else kind].append(plain)


def _kind_of_label(kind: str, key: str, item: str, value: str) -> str:
    """What a label such as `voice: short` says of its value, outside of the sections that have a kind."""
    if kind or not key or len(key.split()) > 2 or key in IDENTITY:
        return ""
    labelled = kind_of(key)
    bold_trait = blocks.FACT.match(item) and labelled not in ("boundaries", "values", "voice") and "," not in value
    return "" if labelled == "background" or bold_trait else labelled


def _is_fact(key: str, value: str, item: str) -> bool:
    if not key or not value or len(value.split()) > 20 or key.endswith("."):
        return False
    return bool(blocks.FACT.match(item)) or key in IDENTITY


def _label_items(kind: str, value: str, plain: str) -> list[str]:
    """The items of `traits: patient, dry`, or the value of another label as it is."""
    if kind != "traits":
        return [value]
    words = lists.words_of(value)
    if sum(len(word.split()) <= 4 for word in words) * 2 >= len(words) and words:
        return [lists.i_am(word, wording.detect(plain)) for word in words]
    return [value]


def _add_matter(content: Content, matter: dict[Any, Any], left_out: LeftOut) -> None:
    """Take the name, description and lists of front matter; count its other fields."""
    for field_name, value in matter.items():
        key = str(field_name).lower()
        kind = kind_of(key)
        texts = texts_of(value) if isinstance(value, list) else [text_of(value)]
        if headings.is_name_label(key) and text_of(value):
            content.facts.setdefault("name", text_of(value))
        elif key in ("description", "summary", "bio") and text_of(value):
            content.summary = content.summary or text_of(value)
        elif key in IDENTITY and text_of(value):
            content.facts.setdefault(key, text_of(value))
        elif kind in ("traits", "voice", "values", "boundaries") and any(texts):
            items = [item for text in texts for item in (_label_items(kind, text, text))]
            content.lists[kind] += items
        else:
            left_out[f"{key[:40]} in the front matter"] += 1


def _name(source: Source, content: Content, whole: str, files: dict[str, str]) -> str:
    """What the persona is called: as the user says, or the text, or else a file's name that may be one."""
    if source.name:
        return source.name
    if name := _stated_name(content, whole):
        return name
    if content.title or "name" in content.facts:
        raise _unfilled(source, files, content.facts.get("name") or content.title)
    if source.path.is_dir() or not (stem := names.in_file(source.path.stem)):
        raise source.nameless()
    return stem


def _stated_name(content: Content, whole: str) -> str:
    """The name in a label, in the title, or in "You are NAME"; "" if there is none or it waits to be filled in."""
    for name in (names.in_label(content.facts.get("name", "")), content.title):
        if name and not is_placeholder(name):
            return name
    return names.in_text(whole)


def _unfilled(source: Source, files: dict[str, str], text: str) -> BadInput:
    folder = source.path if source.path.is_dir() else source.path.parent
    file = next(
        (name for name, body in files.items() if re.search(r"name|nombre|nom", body, re.IGNORECASE)), next(iter(files))
    )
    excerpt = " ".join(text.split())[:60] or "nothing"
    return source.bad(
        f" is an unfilled template: the name in {file} is {excerpt!r}.",
        f"Fill in the name: {source.edit(folder / file)}, or give it: {source.command(name='NAME')}",
    )
