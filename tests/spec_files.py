"""Specs however people have them, and how they are read in tests."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from moltlm.data.spec import Spec
from moltlm.data.spec_formats import reader

SOUL = """# SOUL.md - Who You Are

_You are becoming someone._

## Core Truths

**Be genuinely helpful.** Skip the filler
and just help.

1. Have opinions.

## Boundaries

- Private things stay private.

## Vibe

Dry, and short when it can be.
"""


CARD: dict[str, Any] = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Ada",
        "description": "{{char}} mends clocks for {{user}}.",
        "personality": "patient, dry, exact",
        "scenario": "A workshop.",
        "first_mes": "Mind the springs.",
        "mes_example": "<START>\n{{user}}: Is it broken?\n{{char}}: Only tired.\nLeave it here.\n<START>\nnothing",
        "system_prompt": "Stay in the workshop.",
        "post_history_instructions": "Be brief.",
        "creator_notes": "For people with clocks.",
        "character_book": {
            "entries": [
                {"constant": True, "enabled": True, "content": "{{char}} has a cat."},
                {"constant": False, "enabled": True, "content": "hidden"},
            ]
        },
    },
}


def read_any(path: Path, name: str | None = None) -> Spec:
    return reader.read(path, name).spec


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def text_chunk(kind: str, keyword: bytes, card: bytes) -> bytes:
    body = base64.b64encode(card)
    if kind == "tEXt":
        return chunk(b"tEXt", keyword + b"\0" + body)
    if kind == "zTXt":
        return chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(body))
    return chunk(b"iTXt", keyword + b"\0\1\0\0\0" + zlib.compress(body))


def charx(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


CARD_BYTES = json.dumps(CARD).encode()


def read_text(tmp_path: Path, text: str, name: str = "vex.md", persona_name: str | None = None) -> reader.SpecReading:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return reader.read(tmp_path / name, persona_name)


def texts(spec: Spec) -> list[str]:
    return [trait.text for trait in spec.traits]


def talks(spec: Spec) -> list[list[tuple[str, str]]]:
    return [[(turn.role, turn.content) for turn in talk] for talk in spec.dialogues]


ELIZA: dict[str, Any] = {
    "name": "Mo",
    "plugins": ["x"],
    "settings": {"secrets": {"KEY": "s3cret"}},
    "system": "Roleplay as {{agentName}}. Never use emojis.",
    "bio": ["Owl of nine.", "Hoots at {{user1}}."],
    "lore": "Once ate a clock.",
    "messageExamples": [
        [
            {"user": "{{user1}}", "content": {"text": "Are you up?"}},
            {"user": "Mo", "content": {"text": "Always, {{user1}}."}},
        ],
        {
            "examples": [
                {"name": "{{name1}}", "content": {"text": "Why?"}},
                {"name": "Mo", "content": {"text": "Night."}},
            ]
        },
        [{"name": "Mo", "content": {"text": "Alone."}}],
    ],
    "postExamples": ["Hoo."],
    "topics": ["mice"],
    "style": {"all": ["short"], "chat": ["calls people dear"], "post": ["loud"]},
    "adjectives": ["patient"],
    "knowledge": ["Mice sleep.", {"path": "mice.pdf"}],
}


INSTRUCTIONS = "You are Mo, an owl. You hoot at night. Never lie."
