"""Ordinary prose as an anchor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from moltlm.adapters.rendering import encode_answers
from moltlm.data import prose
from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl


def test_the_shipped_prose_is_different_whole_passages() -> None:
    texts = [row["text"] for row in read_jsonl(prose.shipped(), "prose")]
    assert len(texts) == 100 and all(60 <= len(text.split()) <= 120 for text in texts)
    eights = [
        {tuple(words[i : i + 8]) for i in range(len(words) - 7)} for words in (text.lower().split() for text in texts)
    ]
    assert sum(map(len, eights)) == len(set().union(*eights)), "passages share text"


def test_a_passage_is_its_text_without_a_chat_template(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for passage in prose.anchor()[:20]:
        begin, (rest,) = encode_answers(tokenizer, passage.prompt, [passage.answer])
        text = passage.prompt[0]["content"] + passage.answer
        assert tokenizer.decode(begin + rest, skip_special_tokens=True).split() == text.split()


@pytest.mark.parametrize("name", ["own.txt", "own.jsonl"])
def test_text_of_ones_own_is_cut_into_passages_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    words = [f"word{i}" for i in range(3 * prose.WORDS)]
    text, file = " ".join(words), tmp_path / name
    file.write_text(text if file.suffix == ".txt" else json.dumps({"text": text}))
    passages = prose.anchor(str(file))
    assert len(passages) == 3
    assert " ".join(row.prompt[0]["content"] + row.answer for row in passages) == text


@pytest.mark.parametrize("content", ["", "too short"])
def test_a_file_without_prose_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.txt").write_text(content)
    with pytest.raises(BadInput, match=r"holds no prose|is empty"):
        prose.anchor(str(tmp_path / "own.txt"))
