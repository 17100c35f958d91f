"""The structure of Markdown: headings, bullets, paragraphs, tables, front matter and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

from moltlm.data.io import parse_yaml
from moltlm.data.spec import IDENTITY
from moltlm.data.spec_formats import headings
from moltlm.data.spec_formats.headings import kind_of
from moltlm.data.spec_formats.reading import LeftOut

FACT = re.compile(r"^\*\*([^*:：]{1,40})[:：]?\*\*[ \t]*[:：]?[ \t]*(.*)$", re.DOTALL)
LABEL = re.compile(r"^[*_]{0,3}([^\W\d_][\w ]{0,24}?)[*_]{0,3}[ \t]*[:：][*_]{0,3}[ \t]*(\S.*)$")
BULLET = re.compile(
    r"^[ \t>]*(?:(?:[-*+–—]|\d{1,4}[.)、．])[ \t]+|[・•·●○◆◇■□►▶➤✓✔①-⑳][ \t]*)(?:\[[ xX]\][ \t]+)?(.*)$"
)
HEADING = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*))?$")
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})")
RULE = re.compile(r"^[ \t]*\|?[ \t:|-]*-[ \t:|-]*$")
EMPHASIS = re.compile(r"\*\*|__|`|^>[ \t]*|^_|_$|^\*(?=\S)|(?<=\S)\*$")
LINK = re.compile(r"\[([^\[\]\n]*)\]\([^()\n]*\)")
TAG = re.compile(r"</?[a-zA-Z][^<>\n]*>")


@dataclass
class Section:
    """The items under one heading. `kind` is the heading's own or that of the heading above it."""

    heading: str = ""
    level: int = 0
    kind: str = ""
    items: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def labelled(item: str) -> re.Match[str] | None:
    """A label with its value, with emphasis or without."""
    return FACT.match(item) or LABEL.match(item) if ":" in item or "：" in item or item.startswith("**") else None


@lru_cache(4096)
def plain(item: str) -> str:
    return EMPHASIS.sub("", TAG.sub("", LINK.sub(r"\1", item)).strip()).strip()


def sections(text: str, left_out: LeftOut) -> Iterator[Section]:
    """The sections of a text. A heading without a kind has that of the heading above it.

    Code is no item of a section, and is counted.
    """
    parser = _Parser(left_out)
    lines = text.split("\n")
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if (section := parser.feed(line, after)) is not None:
            yield section
    parser.close()
    yield parser.section


class _Parser:
    """The section that is being read, the paragraph or table at its end, and the kinds of the headings above it."""

    def __init__(self, left_out: LeftOut) -> None:
        self.left_out = left_out
        self.section = Section()
        self.kinds: dict[int, str] = {}
        self.fence = ""
        self.paragraph: list[str] = []
        self.table: list[str] = []
        self.in_list = False

    def feed(self, line: str, after: str) -> Section | None:
        """Read a line, of which the next may make a heading or a table. Returns the section that it ends, if any."""
        if self._in_code(line):
            return None
        if heading := _heading(line, after, self.paragraph):
            self.close()
            ended, self.section = self.section, self._open(*heading)
            return ended
        self.section.lines.append(line)
        self._add(line, after)
        return None

    def close(self) -> None:
        """End the paragraph or table."""
        if self.table:
            self.section.items.extend(_rows(self.table, self.section))
        elif self.paragraph:
            self.section.items.append(" ".join(self.paragraph))
        self.table, self.paragraph = [], []

    def _in_code(self, line: str) -> bool:
        mark = FENCE.match(line)
        if self.fence:
            if mark and mark.group(1).startswith(self.fence) and line.strip() == mark.group(1):
                self.fence = ""
            return True
        if mark:
            self.close()
            self.fence = mark.group(1)
            self.left_out["block of code (it stays in the system prompt)"] += 1
        return bool(mark)

    def _open(self, level: int, title: str) -> Section:
        self.kinds = {each: kind for each, kind in self.kinds.items() if each < level}
        kind = kind_of(title) or (self.kinds[max(self.kinds)] if self.kinds else "")
        if level > 1:
            self.kinds[level] = kind
        elif kind == "traits" and len(title.split()) > 2:
            kind = ""  # "# SOUL.md - Who You Are" is the title of the document
        return Section(title, level, kind)

    def _add(self, line: str, after: str) -> None:
        bullet = BULLET.match(line)
        indented = line.startswith(("    ", "\t"))
        if line.strip() and not indented:
            self.in_list = bool(bullet)
        if not line.strip("-*_= \t\r"):
            self.close()
        elif indented and not (bullet or self.in_list or self.paragraph):
            self.left_out["line of code (it stays in the system prompt)"] += 1
        elif self.table and "|" in line:
            self.table.append(line)
        elif "|" in line and (line.lstrip().startswith("|") or (RULE.match(after) and "|" in after)):
            self.close()
            self.table.append(line)
        elif bullet:
            self.close()
            self.paragraph.append(bullet.group(1).strip())
        elif _is_label(line):
            self.close()
            self.paragraph.append(line.strip())
            if not line.rstrip().endswith((",", "、")):
                self.close()
        else:
            if self.table:
                self.close()
            self.paragraph.append(line.strip())


def _is_label(line: str) -> bool:
    """Whether a line such as `traits: patient, dry` stands for itself."""
    label = LABEL.match(line.strip())
    if not label:
        return False
    key = label.group(1)
    return bool(kind_of(key)) or headings.is_name_label(key) or key.lower() in IDENTITY


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


def _rows(rows: list[str], section: Section) -> list[str]:
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
        label = plain(first).rstrip(":：")
        fact = not section.kind and len(row) == 2 and not any(kinds)
        items.append(f"**{label}:** {text}" if fact and text else f"{label}: {text}" if text else first)
    return [item for item in items if item.strip()]


def front_matter(text: str) -> tuple[str, dict[str, Any]]:
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


def without_comments(text: str, left_out: LeftOut) -> str:
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


def filled(text: str) -> str:
    """The text without the lines that wait to be filled in."""
    return "\n".join(line for line in text.split("\n") if not _waits(line))


@lru_cache(4096)
def _waits(line: str) -> bool:
    bullet = BULLET.match(line)
    item = (bullet.group(1) if bullet else line.lstrip("# \t")).strip()
    if not re.search(r"\w", item):
        return False
    fact = labelled(item) if bullet or item.startswith("**") else None
    return headings.is_placeholder(fact.group(2) if fact else item)
