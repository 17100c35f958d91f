"""SOUL.md, IDENTITY.md and other Markdown or plain text: headings and labels say what a bullet, row or paragraph is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

from moltlm.data.io import parse_yaml
from moltlm.data.spec import IDENTITY, Spec, traits_from
from moltlm.data.spec_formats import examples, headings, lists, macros, wording
from moltlm.data.spec_formats.headings import is_placeholder, kind_of
from moltlm.data.spec_formats.macros import Cast
from moltlm.data.spec_formats.reading import LeftOut, Source, SpecReading, text_of, texts_of, unique

TRAITS = 100
"""The most bullets that are taken as traits; all of them stay in the system prompt."""
FACT = re.compile(r"^\*\*([^*:：]{1,40})[:：]?\*\*[ \t]*[:：]?[ \t]*(.*)$", re.DOTALL)
LABEL = re.compile(r"^[*_]{0,3}([^\W\d_][\w ]{0,24}?)[*_]{0,3}[ \t]*[:：][*_]{0,3}[ \t]*(\S.*)$")
BULLET = re.compile(r"^[ \t>]*(?:[-*+•·]|\d{1,4}[.)、])[ \t]+(?:\[[ xX]\][ \t]+)?(.*)$")
HEADING = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*))?$")
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})")
RULE = re.compile(r"^[ \t]*\|?[ \t:|-]*-[ \t:|-]*$")
EMPHASIS = re.compile(r"\*\*|__|`|^>[ \t]*|^_|_$|^\*(?=\S)|(?<=\S)\*$")
LINK = re.compile(r"\[([^\[\]\n]*)\]\([^()\n]*\)")
TAG = re.compile(r"</?[a-zA-Z][^<>\n]*>")
IMPERATIVE_NO = re.compile(
    r"(?:never|don'?t|do not|avoid|refuse|nie(?:mals)?|niemals|kein\w*|nunca|jam[aá]s|no (?=\w+[ae]?s\b)|ne\b.{0,40}\b(?:pas|jamais)|non\b.{0,40}\bmai"
    r"|n[ãa]o (?=\w+e\b))\b|不要|绝不|絕不|永不|禁止|决不",
    re.IGNORECASE,
)
NOT_IDENTITY = {"role", "age"}


@dataclass
class Section:
    """The items under one heading. `kind` is the heading's own or that of the heading above it."""

    heading: str = ""
    level: int = 0
    kind: str = ""
    items: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


@dataclass
class Content:
    """What the sections hold, by kind; `facts` by label; `labelled`: facts under no known heading that may be traits."""

    facts: dict[str, str] = field(default_factory=dict)
    labelled: list[str] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=lambda: {key: [] for key in (*headings.KINDS, "")})
    talk: list[str] = field(default_factory=list)
    title: str = ""
    unfilled: list[str] = field(default_factory=list)


def read(source: Source, files: dict[str, str]) -> SpecReading:
    """Read Markdown files as one spec. The whole text, without front matter and comments, is the system prompt.

    Raises:
        BadInput: if there is no text, nobody is named, or the name or the traits of a template were not filled in.
    """
    left_out: LeftOut = Counter()
    parts, matter = [], {}
    for text in files.values():
        body, fields = _front_matter(text.replace("\r\n", "\n").replace("\r", "\n"))
        matter |= fields
        parts.append(_without_comments(body, left_out).strip())
    whole = "\n\n".join(filter(None, parts))
    if not whole and not matter:
        raise source.bad(" is empty.", f"Write who it is: {source.edit()}")
    content = _content(whole, left_out)
    _add_matter(content, matter, left_out)
    name = _name(source, content, whole, files)
    return SpecReading(_spec(source, name, content, whole, left_out), "Markdown", +left_out)


def name_in(text: str) -> str:
    """The name that a text of instructions gives: in a label, its title, or "You are NAME"; "" if none."""
    content = _content(_without_comments(text, Counter()), Counter())
    name = content.facts.get("name", "")
    return name if name and not is_placeholder(name) else content.title or _stated_name(text)


def _spec(source: Source, name: str, content: Content, whole: str, left_out: LeftOut) -> Spec:
    cast = Cast(name, wording.detect(whole), left_out)
    content.facts["name"] = name if "name" in content.facts else content.facts.pop("name", "")
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
    left_out["bullet that is no trait of its own (it stays in the system prompt)"] += max(0, len(chosen) - TRAITS)
    traits = traits_from(chosen[:TRAITS] or [cast.wording.i_am.format(name)])
    return Spec(
        name=name,
        summary=next(iter(groups[""]), traits[0].text)[:300],
        system_prompt=macros.instruction(_filled(whole), cast) or cast.wording.you_are.format(name),
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
    sentences = [part for text in paragraphs for part in lists.sentences_about(text, [name], cast.wording) or [text]]
    groups["boundaries"] = unique([*groups["boundaries"], *filter(IMPERATIVE_NO.match, sentences)])
    return unique(text for text in sentences if not IMPERATIVE_NO.match(text)) or unique(paragraphs)


def _content(text: str, left_out: LeftOut) -> Content:
    content = Content()
    for section in _sections(text, left_out):
        if section.level == 1 and not content.title:
            content.title = _title(section.heading)
        if section.kind == "examples":
            content.talk += [*section.lines, "<START>"]
            continue
        for item in section.items:
            _add_item(content, section.kind, item, left_out)
    return content


def _add_item(content: Content, kind: str, item: str, left_out: LeftOut) -> None:
    plain = _plain(item)
    fact = _labelled(item)
    key = fact.group(1).strip(" :：").lower() if fact else ""
    value = _plain(fact.group(2)) if fact else ""
    if headings.is_name_label(key) and (kind in ("", "traits", "background") or not kind):
        content.facts.setdefault("name", value)
        return
    if is_placeholder(value if key else plain):
        content.unfilled.append(plain[:60])
        left_out["unfilled line of a template"] += 1
        return
    if re.fullmatch(r"_[^_]+_|\*[^*]+\*|\([^()]+\)", item.strip()) and re.match(
        r"[_*(]*(?:fill|edit|update|replace|delete)\b", item.strip(), re.IGNORECASE
    ):
        left_out["hint of a template"] += 1
        return
    labelled = kind_of(key) if key and not kind and len(key.split()) <= 2 else ""
    if labelled and labelled != "background" and key not in IDENTITY:
        if not FACT.match(item) or labelled in ("boundaries", "values", "voice") or "," in value:
            content.lists[labelled] += _label_items(labelled, value, plain)
            return
    is_fact = (
        bool(fact)
        and bool(value)
        and len(value.split()) <= 20
        and not key.endswith(".")
        and (FACT.match(item) or key in IDENTITY)
    )
    if not is_fact or (kind and key not in IDENTITY):
        bucket = "boundaries" if not kind and IMPERATIVE_NO.match(plain) else kind
        content.lists[bucket].append(plain)
        return
    content.facts[key] = value
    if key not in IDENTITY:
        content.labelled.append(plain)


def _label_items(kind: str, value: str, plain: str) -> list[str]:
    """The items of `traits: patient, dry`, or the value of another label as it is."""
    if kind != "traits":
        return [value]
    words = lists.words_of(value)
    if sum(len(word.split()) <= 4 for word in words) * 2 >= len(words) and words:
        return [lists.i_am(word, wording.detect(plain)) for word in words]
    return [value]


def _filled(text: str) -> str:
    """The text without the lines that wait to be filled in."""
    return "\n".join(line for line in text.split("\n") if not _waits(line))


@lru_cache(4096)
def _waits(line: str) -> bool:
    bullet = BULLET.match(line)
    item = (bullet.group(1) if bullet else line.lstrip("# \t")).strip()
    if not re.search(r"\w", item):
        return False
    fact = _labelled(item) if bullet or item.startswith("**") else None
    return is_placeholder(fact.group(2) if fact else item)


def _labelled(item: str) -> re.Match[str] | None:
    """A label with its value, with emphasis or without."""
    return FACT.match(item) or LABEL.match(item) if ":" in item or "：" in item or item.startswith("**") else None


@lru_cache(4096)
def _plain(item: str) -> str:
    return EMPHASIS.sub("", TAG.sub("", LINK.sub(r"\1", item)).strip()).strip()


def _sections(text: str, left_out: LeftOut) -> Iterator[Section]:
    """The sections of a text, with code left out of their items. A heading without a kind has that of the one above it."""
    section, above = Section(), dict[int, str]()
    fence = ""
    paragraph: list[str] = []
    table: list[str] = []
    lines = text.split("\n")

    def close() -> None:
        if table:
            section.items.extend(_table(table, section))
        elif paragraph:
            section.items.append(" ".join(paragraph))
        table.clear()
        paragraph.clear()

    for place, line in enumerate(lines):
        after = lines[place + 1] if place + 1 < len(lines) else ""
        mark = FENCE.match(line)
        if fence:
            section.lines.append(line)
            fence = "" if mark and mark.group(1).startswith(fence) and line.strip() == mark.group(1) else fence
            continue
        if mark:
            close()
            fence = mark.group(1)
            left_out["block of code (it stays in the system prompt)"] += 1
            continue
        heading = _heading(line, after, paragraph)
        if heading:
            close()
            yield section
            level, title = heading
            above = {key: kind for key, kind in above.items() if key < level}
            kind = kind_of(title) or (above[max(above)] if above else "")
            if level > 1:
                above[level] = kind
            elif kind == "traits" and not _is_kind_title(title):
                kind = ""
            section = Section(title, level, kind)
            continue
        section.lines.append(line)
        _add_line(line, after, paragraph, table, close)
    close()
    yield section


def _is_kind_title(title: str) -> bool:
    """Whether a title of level 1 is the heading of a section ("# Traits") rather than the document's."""
    return len(title.split()) <= 2


def _add_line(line: str, after: str, paragraph: list[str], table: list[str], close: Any) -> None:
    bullet = BULLET.match(line)
    label = LABEL.match(line.strip())
    if table and "|" in line:
        table.append(line)
    elif "|" in line and (line.lstrip().startswith("|") or (RULE.match(after) and "|" in after)):
        close()
        table.append(line)
    elif bullet:
        close()
        paragraph.append(bullet.group(1).strip())
    elif not line.strip() or not line.strip("-*_= \t"):
        close()
    elif label and (
        kind_of(label.group(1)) or headings.is_name_label(label.group(1)) or label.group(1).lower() in IDENTITY
    ):
        close()
        paragraph.append(line.strip())
        if not paragraph[0].endswith((",", "、")):
            close()
    else:
        if table:
            close()
        paragraph.append(line.strip())


def _heading(line: str, after: str, paragraph: list[str]) -> tuple[int, str] | None:
    """The level and text of a heading, also of one that is underlined; None for any other line."""
    if match := HEADING.match(line):
        return len(match.group(1)), (match.group(2) or "").strip("# *_\t")
    if line.strip() and not paragraph and not BULLET.match(line) and "|" not in line:
        under = after.strip()
        if len(under) >= 2 and set(under) <= {"="}:
            return 1, line.strip(" *_")
        if len(under) >= 3 and set(under) <= {"-"}:
            return 2, line.strip(" *_")
    bold = re.fullmatch(r"\s*\*\*([^*\n]{2,60}?)[:：]?\*\*[:：]?\s*", line)
    if bold and not paragraph and kind_of(bold.group(1)) and not headings.is_name_label(bold.group(1)):
        return 5, bold.group(1)
    return None


def _table(rows: list[str], section: Section) -> list[str]:
    """The rows of a table as `first: second; third`. The header says what they are where the heading does not."""
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows if not RULE.match(row)]
    ruled = len(rows) > 1 and bool(RULE.match(rows[1]))
    header, body = (cells[0], cells[1:]) if ruled and cells else ([], cells)
    kinds = [kind_of(cell) for cell in header]
    if not section.kind and kinds and kinds[0]:
        section.kind = kinds[0]
    items = []
    for row in body:
        first, *rest = [cell for cell in row if cell] or [""]
        text = "; ".join(rest)
        label = _plain(first).rstrip(":：")
        fact = not section.kind and len(row) == 2 and not any(kinds)
        items.append(f"**{label}:** {text}" if fact and text else f"{label}: {text}" if text else first)
    return [item for item in items if item.strip()]


def _front_matter(text: str) -> tuple[str, dict[str, Any]]:
    """The text after its front matter, and the fields of that."""
    text = text.lstrip("\ufeff")
    mark = text[:3]
    if mark not in ("---", "+++") or text[3:4] not in ("\n", " "):
        return text, {}
    end = text.find(f"\n{mark}", 3)
    if end < 0:
        return text, {}
    body = text[end + 4 :].partition("\n")[2]
    if mark == "+++":
        pairs = re.findall(r"^[ \t]*(\w+)[ \t]*=[ \t]*\"([^\"\n]*)\"", text[3:end], re.MULTILINE)
        return body, dict(pairs)
    try:
        fields = parse_yaml(text[3:end])
    except yaml.YAMLError:
        fields = dict(re.findall(r"^(\w+):[ \t]*(\S.*)$", text[3:end], re.MULTILINE))
    return (body, fields) if isinstance(fields, dict) else (text, {})


def _add_matter(content: Content, matter: dict[Any, Any], left_out: LeftOut) -> None:
    """Take the name, description and lists of front matter; count its other fields."""
    for field_name, value in matter.items():
        key = str(field_name).lower()
        kind = kind_of(key)
        texts = texts_of(value) if isinstance(value, list) else [text_of(value)]
        if headings.is_name_label(key) and text_of(value):
            content.facts.setdefault("name", text_of(value))
        elif key in ("description", "summary", "bio") and text_of(value):
            content.lists[""].insert(0, text_of(value))
        elif key in IDENTITY and text_of(value):
            content.facts.setdefault(key, text_of(value))
        elif kind in ("traits", "voice", "values", "boundaries") and any(texts):
            items = [item for text in texts for item in (_label_items(kind, text, text))]
            content.lists[kind] += items
        else:
            left_out[f"{key[:40]} in the front matter"] += 1


def _without_comments(text: str, left_out: LeftOut) -> str:
    """The text without `<!-- -->`, of which one that is never closed goes to the end."""
    parts, place = [], 0
    while (start := text.find("<!--", place)) >= 0:
        parts.append(text[place:start])
        left_out["comment"] += 1
        end = text.find("-->", start + 4)
        if end < 0:
            return "".join(parts)
        place = end + 3
    return "".join([*parts, text[place:]])


def _name(source: Source, content: Content, whole: str, files: dict[str, str]) -> str:
    """What the persona is called: as the user says, or the text, or else a file's name that may be one."""
    if source.name:
        return source.name
    stated = content.facts.get("name")
    if stated is not None and not is_placeholder(stated):
        return re.split(r"\s+[(（—–|]|[,;，]", stated)[0].strip(" .\"'“”") or stated
    title = content.title
    if name := (title if not is_placeholder(title) else "") or _stated_name(whole):
        return name
    if title or stated is not None:
        raise _unfilled(source, files, title or stated or "")
    stem = re.sub(r"[._-]+", " ", source.path.stem).strip()
    if source.path.is_dir() or headings.plain(stem.split()[0] if stem else "") in headings.GENERIC:
        raise source.nameless()
    return source.path.stem


def _unfilled(source: Source, files: dict[str, str], text: str) -> Any:
    folder = source.path if source.path.is_dir() else source.path.parent
    file = next(
        (name for name, body in files.items() if re.search(r"name|nombre|nom", body, re.IGNORECASE)), next(iter(files))
    )
    shown = " ".join(text.split())[:60] or "nothing"
    return source.bad(
        f" is an unfilled template: the name in {file} is {shown!r}.",
        f"Fill in the name: {source.edit(folder / file)}, or give it: {source.command(name='NAME')}",
    )


def _title(heading: str) -> str:
    """The name in a title: one to four words that are no common ones, also in "SOUL.md - Vex" and "Vex, a clockmaker"."""
    text = _plain(re.sub(r"\b(?:SOUL|IDENTITY|AGENTS|CLAUDE|README|PERSONA)\.md\b", "", heading, flags=re.IGNORECASE))
    for part in re.split(r"\s+[-–—|:]+\s+|[:：,，(（]\s*|\s+—\s*", text):
        part = re.sub(
            r"^(?:meet|about|this is|i am|ich bin|soy|je suis|eu sou|sono|the soul of|soul of|über|sobre)\s+|['’]s (?:soul|identity|persona)$",
            "",
            part.strip(' -–—|:*_)）."“”'),
            flags=re.IGNORECASE,
        )
        words = part.split()
        if (
            not 1 <= len(words) <= 4
            or headings.plain(words[0]) in headings.GENERIC
            or headings.plain(part) in headings.GENERIC
        ):
            continue
        if (kind_of(part) and len(words) > 1) or (kind_of(part) and not part[0].isupper()):
            continue
        if kind_of(part) or (is_placeholder(part) and not re.match(r"[\[{<(]", part)):
            continue
        if words[0].lower() in ("who", "your", "the"):
            continue
        return part
    return ""


_NAMED = r"[*_\"“「]{0,3}([^\W\d_][\w'’.-]{0,30}(?:[ ][A-ZÀ-ÝА-Я][\w'’.-]{0,30}){0,2})"
STATED = re.compile(
    r"(?:(?i:\b(?:you are|you're|your name is|my name is|i am|i'm|du bist|du heißt|ich bin|ich heiße|mein name ist"
    r"|dein name ist|eres|te llamas|me llamo|mi nombre es|tu nombre es|soy|tu es|tu t'appelles|je m'appelle|je suis"
    r"|você é|voce e|chamas-te|eu sou|seu nome é|meu nome é|sei|ti chiami|mi chiamo|io sono|il tuo nome è))[ ]+"
    rf"|(?:你是|我是|你叫|我叫|あなたは|私は|私の名前は)){_NAMED}"
)
ARTICLES = {
    "a", "an", "the", "not", "no", "my", "your", "here", "someone", "becoming", "always", "never", "ein", "eine", "der", "die", "das", "kein",
    "un", "una", "el", "la", "une", "le", "um", "uma", "o", "il", "lo", "nicht", "who", "what", "both", "more", "also", "just", "very", "one", "it",
}  # fmt: skip


def _stated_name(text: str) -> str:
    """NAME in "You are NAME" and the like, if it is written as a name."""
    for match in STATED.finditer(text[:20_000]):
        name = re.split(r"(?:です|だ|，|。|、)", match.group(1))[0].rstrip(".'’-")
        first = name.split()[0] if name else ""
        bold = match.group()[: -len(match.group(1))][-1:] in '*_"“「'
        german = (
            re.match(r"(?:du|ich)\b", match.group(), re.IGNORECASE)
            and not bold
            and not re.match(r"[,. (]", text[match.end() : match.end() + 1] or ".")
        )
        if first and first[0].isupper() and headings.plain(first) not in ARTICLES | headings.GENERIC and not german:
            return name
        if first and not first[0].isascii() and not first[0].islower() and len(name) <= 12:
            return name
    return ""
