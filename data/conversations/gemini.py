"""Gemini: the activity that Google Takeout exports, and prompts of AI Studio."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from moltlm.data.conversations.format import Format
from moltlm.data.conversations.marks import mark_of
from moltlm.data.conversations.turns import Fail, FileReport, Record, Turn, turn_of, type_name

PRODUCT = re.compile(r"\b(?:gemini|bard)\b", re.IGNORECASE)
ASKED = re.compile(
    r"(?:Prompted|Asked|Said|Introduced prompt:|(?:Eingegebener|Gesendeter) Prompt:|Gefragt:"
    r"|Inviato prompt:|Comando:|Consulta:|Indicación:|Prompt digitado:|Wpisany prompt:|(?:Отправлен|Введен) запрос:"
    r"|Запрос:|Girilen istem:|プロンプト\s?[:：]|入力した内容\s?[:：]|(?:輸入)?提示\s?[:：]|입력한 프롬프트:"
    r"|Prompt (?:saisi|envoyé)\s?:|Requête\s?:|Vous avez demandé\s?:?"
    r"|(?:Petición|Instrucción) (?:introducida|enviada|ingresada):|Mensaje enviado:|Has preguntado:?"
    r"|(?:Comando|Prompt) (?:enviado|inserido|inserito|inviato):|Hai chiesto:?|(?:Ingevoerde|Verzonden) prompt:"
    r"|送信したメッセージ\s?[:：]|入力したプロンプト\s?[:：]|프롬프트:|输入的提示\s?[:：]|已输入提示\s?[:：]|Prompt\s?[:：])\s*"
)
"""How the title of an activity with a prompt begins, in the language of the account."""

TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})\b[^<>]{0,4000}>")
BREAKS = {"p", "div", "ul", "ol", "table", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "hr"}


def as_text(page: str) -> str:
    """The text of a piece of HTML, in Markdown where that is plain: paragraphs, lists, headings, code, bold."""

    def sign(match: re.Match[str]) -> str:
        closes, tag = match[1] == "/", match[2].lower()
        if tag in ("br", "tr"):
            return "\n"
        if tag == "li":
            return "" if closes else "\n- "
        if tag == "pre":
            return "\n```\n"
        if tag in ("b", "strong"):
            return "**"
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6") and not closes:
            return "\n\n" + "#" * int(tag[1]) + " "
        return "\n\n" if tag in BREAKS else " " if tag == "td" else ""

    text = html.unescape(TAG.sub(sign, page)).replace("\xa0", " ")
    return re.sub(r"\n[ \t]*\n\s*\n", "\n\n", text).strip()


def _is_activity(record: Record) -> bool:
    return "title" in record and "time" in record and ("header" in record or "products" in record)


def _activity(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    """One prompt and its answer: Takeout does not say which of them belong to one conversation."""
    if not PRODUCT.search(f"{record.get('header')} {record.get('products')}"):
        report.noise["activity in another product"] += 1
        report.conversations -= 1
        return
    title, items = record.get("title"), record.get("safeHtmlItem")
    if not isinstance(title, str):
        raise fail(f"the `title` of an activity is {type_name(title)}, not a text.")
    prompt = ASKED.match(title)
    answers = [item["html"] for item in _list(items) if isinstance(item, dict) and isinstance(item.get("html"), str)]
    if not answers or not (prompt or len(title) > 3):
        report.noise["activity without an answer"] += 1
        report.conversations -= 1
        return
    report.noise["activity in an unknown language"] += prompt is None
    report.noise["attachment"] += any(key in record for key in ("attachedFiles", "imageFile"))
    if prompt is None:
        report.drop("title in an unknown language: export it in English")
        return
    yield from turn_of("user", title[prompt.end() :], report, fail)
    yield from turn_of("assistant", "\n\n".join(map(as_text, answers)), report, fail)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_studio(record: Record) -> bool:
    return isinstance(record.get("chunkedPrompt"), dict)


def _studio(record: Record, report: FileReport, fail: Fail) -> Iterator[Turn]:
    instruction = record.get("systemInstruction")
    report.noise["system message"] += bool(instruction and _chunk_text(instruction, report))
    for chunk in _list(record["chunkedPrompt"].get("chunks")):
        if not isinstance(chunk, dict):
            raise fail(f"one of `chunks` is {type_name(chunk)}, not an object.")
        if chunk.get("isThought"):
            report.noise["thinking"] += 1
            continue
        role = {"user": "user", "model": "assistant"}.get(str(chunk.get("role")))
        if role is None:
            raise fail(f"a chunk needs a role (user, model); found {str(chunk.get('role'))[:40]}.")
        media = sum(key.startswith(("drive", "inline", "youtube")) for key in chunk)
        report.noise["attachment"] += media
        unwanted = mark_of({"error": chunk.get("errorMessage"), **chunk}, report.scales).unwanted
        for turn in turn_of(role, _chunk_text(chunk, report), report, fail):
            turn = turn._replace(unwanted=unwanted if role == "assistant" else "")
            if turn.text.strip() or not media or role == "user":
                yield turn


def _chunk_text(chunk: Any, report: FileReport) -> str:
    """The text of a chunk; without it, that of its parts that are no thoughts."""
    if not isinstance(chunk, dict):
        return chunk if isinstance(chunk, str) else ""
    if isinstance(chunk.get("text"), str):
        return chunk["text"]
    parts = [part for part in _list(chunk.get("parts")) if isinstance(part, dict)]
    report.noise["thinking"] += sum(bool(part.get("thought")) for part in parts)
    return "".join(str(part.get("text") or "") for part in parts if not part.get("thought"))


FORMATS = (
    Format("Gemini (Takeout)", "Gemini's MyActivity.json of Google Takeout", _is_activity, _activity),
    Format("Gemini (AI Studio)", "prompts of Google AI Studio (`chunkedPrompt`)", _is_studio, _studio),
)
