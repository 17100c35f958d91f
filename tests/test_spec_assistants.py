"""Specs of other programs: assistants, their instructions and characters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from spec_files import ELIZA, INSTRUCTIONS, read_text, talks, texts

from moltlm.data.errors import BadInput


def test_an_eliza_character(tmp_path: Path) -> None:
    reading = read_text(tmp_path, json.dumps(ELIZA), "mo.json")
    spec = reading.spec
    assert reading.format == "ElizaOS character" and spec.name == "Mo"
    for part in ("Roleplay as Mo.", "Owl of nine.", "Once ate a clock.", "mice", "Mice sleep."):
        assert part in spec.system_prompt
    assert texts(spec) == ["I am patient.", "Owl of nine.", "Hoots at the user."]
    assert spec.voice == ["short", "calls people dear", "Writes a post like this: Hoo."]
    assert talks(spec) == [
        [("user", "Are you up?"), ("assistant", "Always.")],
        [("user", "Why?"), ("assistant", "Night.")],
    ]
    assert "s3cret" not in spec.model_dump_json() and "{{" not in spec.model_dump_json()
    assert reading.left_out == {
        "plugins": 1, "settings": 1, "style.post": 1, "knowledge": 1, "example without a question and an answer": 1
    }  # fmt: skip


def test_an_agnai_character(tmp_path: Path) -> None:
    record = {
        "kind": "character",
        "name": "Mo",
        "description": "an owl for everybody",
        "persona": {"kind": "boostyle", "attributes": {"personality": ["patient", "dry"], "likes": ["mice"]}},
        "greeting": "Hoo?",
        "sampleChat": "{{user}}: Up?\n{{char}}: Always.",
        "systemPrompt": "Stay in the tree.",
    }
    reading = read_text(tmp_path, json.dumps(record), "mo.json")
    assert reading.format == "Agnai character" and texts(reading.spec) == ["I am patient.", "I am dry."]
    assert "Likes: mice" in reading.spec.system_prompt and "Stay in the tree." in reading.spec.system_prompt
    assert talks(reading.spec) == [[("user", "Up?"), ("assistant", "Always.")]]
    assert reading.left_out == {"description": 1}


@pytest.mark.parametrize(
    ("format", "record"),
    [
        (
            "OpenAI assistant",
            {"object": "assistant", "name": "Mo", "instructions": INSTRUCTIONS, "model": "m", "tools": []},
        ),
        ("OpenAI assistant", {"id": "asst", "name": None, "instructions": INSTRUCTIONS}),
        ("custom GPT", {"gizmo": {"display": {"name": "Mo"}, "instructions": INSTRUCTIONS}, "tools": []}),
        (
            "Open WebUI model",
            [{"id": "mo", "name": "Mo", "params": {"system": INSTRUCTIONS}, "meta": {"description": "d"}}],
        ),
        ("LobeChat agent", {"meta": {"title": "Mo"}, "config": {"systemRole": INSTRUCTIONS}}),
        ("HuggingChat assistant", {"name": "Mo", "preprompt": INSTRUCTIONS}),
        (
            "assistant",
            {"name": "Mo", "operation": {"fields": [{"key": "llm.prediction.systemPrompt", "value": INSTRUCTIONS}]}},
        ),
    ],
)
def test_assistants_with_instructions(tmp_path: Path, format: str, record: Any) -> None:
    reading = read_text(tmp_path, json.dumps(record), "mo.json")
    assert reading.format == format and reading.spec.name == "Mo" and reading.spec.system_prompt == INSTRUCTIONS
    assert texts(reading.spec) == ["I am Mo, an owl.", "I hoot at night."] and reading.spec.boundaries == ["Never lie."]


@pytest.mark.parametrize("quotes", [('"""\n', '\n"""'), ('"""', '"""'), ('"', '"'), ("", "")])
def test_a_modelfile(tmp_path: Path, quotes: tuple[str, str]) -> None:
    text = f"# an owl\nFROM llama3\nPARAMETER temperature 1\nSYSTEM {quotes[0]}{INSTRUCTIONS}{quotes[1]}\nMESSAGE user Up?\nMESSAGE assistant Always.\n"
    reading = read_text(tmp_path, text, "Modelfile")
    assert reading.format == "Modelfile" and reading.spec.name == "Mo" and reading.spec.system_prompt == INSTRUCTIONS
    assert talks(reading.spec) == [[("user", "Up?"), ("assistant", "Always.")]]
    assert reading.left_out == {"PARAMETER": 1}
    with pytest.raises(BadInput, match="Modelfile without SYSTEM"):
        read_text(tmp_path, "FROM llama3\nPARAMETER temperature 1\n", "Modelfile")
    with pytest.raises(BadInput, match="does not say what the persona is called") as error:
        read_text(tmp_path, "FROM llama3\nSYSTEM Be calm.\n", "Modelfile")
    assert "--name NAME" in error.value.fix


def test_a_character_of_text_generation_webui(tmp_path: Path) -> None:
    text = """name: Mo Hoot
greeting: |-
  *Mo blinks* Hi, {{user}}!
context: |-
  Mo Hoot is an old owl. She is slow.

  {{user}}: Up?
  {{char}}: Always.
"""
    reading = read_text(tmp_path, text, "Mo.yaml")
    assert reading.format == "text-generation-webui character" and texts(reading.spec) == [
        "I am an old owl.",
        "I am slow.",
    ]
    assert reading.spec.voice == ["Opens a conversation like this: *Mo blinks* Hi!"]
    assert talks(reading.spec) == [[("user", "Up?"), ("assistant", "Always.")]]
    assert "Always" not in reading.spec.system_prompt
