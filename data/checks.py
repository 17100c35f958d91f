"""Quality gates of preference pairs, each with a count and examples of what it dropped; length bias; template feel."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from moltlm.data.coherence import ECHO_SHARE, REPEATS, ngrams, words
from moltlm.data.config import ChecksConfig
from moltlm.data.errors import BadInput
from moltlm.data.types import Pair

EXAMPLES = 3
EVIDENCE = 8
LONG_WORDS = 12
LANGUAGE_WORDS = 16
LOOPING_SHARE = 0.15
QUOTED_WORDS = 50
_ME = r"\bi(?:'m| am) "
_NOT = r"(?:can't|cannot|can not|won't|am unable to|'m unable to|am not able to|'m not able to)"
_DONT = r"(?:don't|do not|can't|cannot)"
_AI = r"(?:just |only |merely )?an? (?:ai|artificial intelligence)"
_OWN = r"(?:opinion|feeling|experience|preference|belief|emotion)s?"
_HELP = r"(?:assist|help(?! \w+ing\b| it\b| but\b)|comply|fulfil|provide|answer)"
REFUSAL = re.compile(
    # "As an AI, ...", "as a large language model developed by ..."
    r"\bas an? (?:\w+ ){0,2}(?:ai|artificial intelligence|language model)\b"
    rf"|{_ME}(?:just |only |merely )?an? (?:\w+ ){{0,2}}language model\b"
    # being an AI is no refusal, and a personality may say so: only with what it therefore has not
    rf"|{_ME}{_AI}\b[^.?!]{{0,40}}\b{_DONT} (?:have|feel|possess)\b"
    rf"|\bi {_DONT} have (?:personal|my own) (?:\w+ (?:or|and) )?{_OWN}"
    # "I'm sorry, but I can't assist with that." and "I cannot fulfill this request."
    rf"|(?:\bsorry|\bapologi[sz]e)\b[^.?!]{{0,20}}\bi ?{_NOT} {_HELP}"
    rf"|\bi ?{_NOT} (?:assist|comply|fulfill?|help)(?: you)?(?: with)? (?:that|this|your) request\b"
    rf"|{_ME}(?:unable|not able) to (?:assist|help|comply|fulfill?)\b"
    r"|\bagainst my (?:programming|guidelines)\b",
    re.IGNORECASE,
)
UNFINISHED = re.compile(r"[\w,&(/–—-]\s*$")
ITEM = re.compile(r"\s*(?:[-*•·–+#|>]|\(?(?:\d{1,3}|[A-Za-z])[.):\t])")


@dataclass(frozen=True)
class Report:
    """`dropped` counts, by gate in the order of the gates, what each took out; `examples` show a few of them."""

    pairs: int
    dropped: dict[str, int]
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class LengthBias:
    """What DPO could learn instead of the voice: mean words of both sides, how often chosen is the longer one, and the
    AUROC of length alone at telling the sides apart (one half: no bias)."""

    chosen_words: float
    rejected_words: float
    chosen_longer: float
    auroc: float


@dataclass(frozen=True)
class Variety:
    """Template feel of answers. `distinct_n` is the number of different n-grams over that of all (Li et al. 2016),
    `opening` and `closing` the share of the commonest first two words, and the last sentence's first two, `repeated`
    the share of answers with five words in a row that another has too."""

    answers: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    opening: float
    closing: float
    repeated: float
    questions: float
    mean_words: float
    sd_words: float


@dataclass(frozen=True)
class Habits:
    """What is so common among the answers that it is their way, and no fault: their language, if most are in it, and
    whether they end without a full stop, by the short ones, which no limit has cut. More than EVIDENCE
    of them have to agree."""

    language: str
    unpunctuated: bool


def habits(pairs: list[Pair]) -> Habits:
    said = [pair.chosen for pair in pairs]
    short = [text for text in said if len(words(text)) <= LONG_WORDS]
    unfinished = sum(bool(UNFINISHED.search(text)) for text in short)
    spoken = Counter(_language(text)[0] for text in said if len(words(text)) >= LANGUAGE_WORDS)
    code, count = spoken.most_common(1)[0] if spoken else ("", 0)
    usual = max(spoken.total() / 2, EVIDENCE)
    return Habits(code if count > usual else "", unfinished > max(len(short) / 2, EVIDENCE))


def gates(
    config: ChecksConfig, seen: set[str], usual: Habits, margins: dict[str, float] | None = None
) -> dict[str, Callable[[Pair], bool]]:
    """Name of what is wrong: whether it is, in the order in which they are asked. `seen` holds the prompts that have
    been kept, as `_asked` has them, `margins`, by the pair's id, how much likelier the answer is with the spec as a
    system prompt than without it, in nats a token."""
    found: dict[str, Callable[[Pair], bool]] = {
        "duplicate": lambda pair: _asked(pair) in seen,
        "empty rejected": lambda pair: not pair.rejected.strip(),
        "chosen equals rejected": lambda pair: pair.chosen.strip() == pair.rejected.strip(),
        "length ratio": lambda pair: _ratio(pair) < config.min_length_ratio,
        "incoherent": lambda pair: _incoherent(pair, usual),
        "refusal": lambda pair: bool(REFUSAL.search(pair.chosen.replace("’", "'"))),
    }
    if config.language:
        found["language"] = lambda pair: _other_language(pair, usual)
    if margins is not None and config.min_margin is not None:
        least = config.min_margin
        found["not in persona"] = lambda pair: margins.get(pair.id, least) < least
    return found


def keep(pairs: list[Pair], config: ChecksConfig, margins: dict[str, float] | None = None) -> tuple[list[Pair], Report]:
    """The pairs that pass every gate, and what became of the others. Raises BadInput when nothing is left."""
    seen: set[str] = set()
    asked = gates(config, seen, habits(pairs), margins)
    kept, dropped, examples = [], dict.fromkeys(asked, 0), {}
    for pair in pairs:
        reason = next((name for name, wrong in asked.items() if wrong(pair)), "")
        if not reason:
            kept.append(pair)
            seen.add(_asked(pair))
            continue
        dropped[reason] += 1
        shown = examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(f"{pair.question[:60]!r} -> {pair.chosen[:80]!r}")
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise BadInput(
            f"No pair can be trained on ({reasons or 'there are none'}).", "Look at them: molt data lint CONFIG"
        )
    return kept, Report(len(kept), dropped, examples)


def length_bias(pairs: list[Pair]) -> LengthBias:
    chosen = [len(pair.chosen.split()) for pair in pairs]
    rejected = [len(pair.rejected.split()) for pair in pairs]
    return LengthBias(
        statistics.mean(chosen),
        statistics.mean(rejected),
        sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(pairs),
        float(roc_auc_score([1] * len(chosen) + [0] * len(rejected), chosen + rejected)),
    )


def variety(answers: list[str]) -> Variety:
    """Raises ValueError for no answers."""
    if not answers:
        raise ValueError("variety of no answers")
    said = [words(answer) for answer in answers]
    last = [words(re.split(r"(?<=[.?!])\s+", answer.strip())[-1]) for answer in answers]
    fives = Counter(gram for tokens in said for gram in set(ngrams(tokens, 5)))
    lengths = [len(tokens) for tokens in said]
    return Variety(
        len(answers),
        _distinct(said, 1),
        _distinct(said, 2),
        _distinct(said, 3),
        _commonest(said),
        _commonest(last),
        float(np.mean([any(fives[gram] > 1 for gram in ngrams(tokens, 5)) for tokens in said])),
        float(np.mean([answer.rstrip().endswith("?") for answer in answers])),
        statistics.mean(lengths),
        statistics.pstdev(lengths),
    )


def _distinct(said: list[list[str]], n: int) -> float:
    grams = [gram for tokens in said for gram in ngrams(tokens, n)]
    return len(set(grams)) / max(len(grams), 1)


def _commonest(said: list[list[str]]) -> float:
    return Counter(tuple(tokens[:2]) for tokens in said).most_common(1)[0][1] / len(said)


def _asked(pair: Pair) -> str:
    """The prompt without case and punctuation; as it is, if there is nothing else in it."""
    text = "\n".join(turn["content"] for turn in pair.prompt)
    return " ".join(words(text)) or text.strip()


def _ratio(pair: Pair) -> float:
    chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
    return min(chosen, rejected) / max(chosen, rejected, 1)


def _incoherent(pair: Pair, usual: Habits) -> bool:
    """Echo, a loop, or a sentence that is cut off. Measured on 1,000 answers that people wrote (Dolly), which
    `coherence.check` is too strict for: a long answer repeats itself, and one about a given text quotes it."""
    asked, said = words(pair.question), words(pair.chosen)
    return _echoes(asked, said) or _loops(said) or (not usual.unpunctuated and _cut_off(pair.chosen))


def _echoes(asked: list[str], said: list[str]) -> bool:
    """Most of the answer is the question again. A text to work on may be quoted, but not given back as it is."""
    if len(asked) > QUOTED_WORDS and 2 * len(said) < len(asked):
        return False
    theirs, ours = set(ngrams(asked, 4)), ngrams(said, 4)
    return bool(ours) and sum(gram in theirs for gram in ours) >= ECHO_SHARE * len(ours)


def _loops(said: list[str]) -> bool:
    """Four-grams that come three times or more make up a good part of the answer."""
    counts = Counter(ngrams(said, 4))
    return sum(n for n in counts.values() if n >= REPEATS) > LOOPING_SHARE * counts.total()


def _cut_off(text: str) -> bool:
    """The last line is long, no item of a list, and ends within a sentence."""
    last = text.rstrip().split("\n")[-1]
    return len(words(last)) > LONG_WORDS and bool(UNFINISHED.search(last)) and not ITEM.match(last)


def _other_language(pair: Pair, usual: Habits) -> bool:
    """Answer and prompt are both long enough to tell, and surely of two languages; nor is it that of most answers."""
    asked = pair.question
    if min(len(words(asked)), len(words(pair.chosen))) < LANGUAGE_WORDS:
        return False
    first, second = _language(asked), _language(pair.chosen)
    return second[0] not in (first[0], usual.language) and min(first[1], second[1]) > 0.9


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str:
    """ISO 639-1 code of the likeliest language (py3langid); unsure on a few words."""
    return _language(text)[0]


def _language(text: str) -> tuple[str, float]:
    code, probability = _identifier().classify(text)
    return code, float(probability)
