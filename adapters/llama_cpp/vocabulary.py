"""A tokenizer as GGUF metadata: tokens, merges, and the name by which llama.cpp knows its pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType

from moltlm.adapters.llama_cpp.families import CONVERT
from moltlm.data.errors import BadInput

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SPLITS = {
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}": "qwen2",
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}": "llama-bpe",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
"""llama.cpp's name by the regular expression that splits a text before its bytes become tokens."""


@dataclass(frozen=True)
class Turns:
    """What a chat adds to the tokens.

    Attributes:
        template: the chat template, as Jinja.
        end: the token that ends an answer.
        adds_bos: whether a text begins with the token of its beginning, without the template writing it.
    """

    template: str
    end: str
    adds_bos: bool


def turns_of(tokenizer: Any, end: str) -> Turns:
    """Of a tokenizer whose template is settled.

    llama.cpp takes the token of the beginning away from a rendered prompt before it adds one, so it may add one where
    both the tokenizer and the template do.
    """
    bos = tokenizer.bos_token
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    adds = bool(bos) and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id] and prompt.startswith(bos)
    return Turns(tokenizer.chat_template, end, adds)


def add(writer: GGUFWriter, tokenizer: Any, rows: int, turns: Turns) -> None:
    """Add a byte-level BPE tokenizer.

    Args:
        rows: of the embedding matrix, which may be more than there are tokens.

    Raises:
        BadInput: it is of another kind, or llama.cpp does not know how it splits a text.
    """
    made_of = parts(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(made_of))
    writer.add_token_list([text for text, _ in tokens(tokenizer, rows)])
    writer.add_token_types([kind for _, kind in tokens(tokenizer, rows)])
    merges = made_of["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_add_bos_token(turns.adds_bos)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    end = tokenizer.convert_tokens_to_ids(turns.end)
    writer.add_eos_token_id(end if tokenizer.eos_token_id is None else tokenizer.eos_token_id)
    writer.add_eot_token_id(end)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(turns.template)


def parts(tokenizer: Any) -> dict[str, Any]:
    """What tokenizer.json says of it."""
    return json.loads(tokenizer.backend_tokenizer.to_str())


def tokens(tokenizer: Any, rows: int) -> Iterator[tuple[str, TokenType]]:
    """Each token with its kind; rows of the embedding matrix without a token are unused."""
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    for number in range(rows):
        if number not in texts:
            yield f"[PAD{number}]", TokenType.UNUSED
        elif number in added:
            yield texts[number], TokenType.CONTROL if added[number].special else TokenType.USER_DEFINED
        else:
            yield texts[number], TokenType.NORMAL


def pre_tokenizer(parts: dict[str, Any]) -> str:
    """llama.cpp's name of what splits a text, by the parts of tokenizer.json.

    Raises:
        BadInput: llama.cpp does not know it.
    """
    before = parts["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    kinds = [step.get("type") for step in steps]
    bytewise = (
        parts["model"]["type"] == "BPE" and not parts["model"].get("byte_fallback") and kinds[-1:] == ["ByteLevel"]
    )
    if bytewise and not steps[-1].get("add_prefix_space"):
        splits = steps[-1].get("use_regex", True)
        if kinds == ["ByteLevel"] and splits:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and splits:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and (name := SPLITS.get(steps[0]["pattern"].get("Regex", ""))):
            return name
    raise BadInput("How the tokenizer of this model splits a text has no name here that llama.cpp knows.", CONVERT)
