"""The words of a language that a spec needs: "I am", "the user", "you". The language is told by its commonest words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Wording:
    """Phrases of one language.

    Args:
        i_am: makes a trait of an adjective.
        you_are: begins a system prompt.
        user: whom `{{user}}` means in an instruction; `you` and `me`: in an answer and in a question.
        common: frequent words that other languages in the table lack.
    """

    code: str
    i_am: str
    you_are: str
    user: str
    you: str
    me: str
    common: str = ""


ENGLISH = Wording(
    "en", "I am {}.", "You are {}.", "the user", "you", "me", "the and is of to with who her his she he when never"
)
WORDINGS = (
    ENGLISH,
    Wording("de", "Ich bin {}.", "Du bist {}.", "der Benutzer", "dich", "mich",
            "der die das und ist nicht ein eine mit ich du"),
    Wording("es", "Soy {}.", "Eres {}.", "el usuario", "ti", "mí", "el los las y es no con una su que del en por"),
    Wording("fr", "Je suis {}.", "Tu es {}.", "l'utilisateur", "toi", "moi",
            "le les et est une avec des pas dans je tu qui"),
    Wording("pt", "Sou {}.", "Você é {}.", "o usuário", "você", "mim", "o os e é não com uma um do da em você ele ela"),
    Wording("it", "Sono {}.", "Sei {}.", "l'utente", "te", "me", "il gli e è non con una un di che sono del della"),
    Wording("nl", "Ik ben {}.", "Jij bent {}.", "de gebruiker", "jou", "mij", "het en niet een met ik je zijn van"),
    Wording("pl", "Jestem {}.", "Jesteś {}.", "użytkownik", "ciebie", "mnie", "i jest nie się z na to jak"),
    Wording("ru", "Я {}.", "Ты {}.", "пользователь", "тебя", "меня", "и не в на он она я ты это"),
    Wording("zh", "我{}。", "你是{}。", "用户", "你", "我"),
    Wording("ja", "私は{}。", "あなたは{}です。", "ユーザー", "あなた", "私"),
    Wording("ko", "나는 {}.", "당신은 {}입니다.", "사용자", "당신", "나"),
)  # fmt: skip
SAMPLE = 20_000
"""Characters of a text that are looked at."""


@cache
def of(code: str) -> Wording:
    return next(each for each in WORDINGS if each.code == code)


def detect(text: str) -> Wording:
    """The wording of a text's language; English for one that is not in the table."""
    text = text[:SAMPLE]
    han, kana, hangul = (len(re.findall(span, text)) for span in ("[一-鿿]", "[぀-ヿ]", "[가-힯]"))
    if han + kana + hangul > len(re.findall(r"[^\W\d_]", text)) / 4:
        return of("ko" if hangul > han + kana else "ja" if kana * 10 > han else "zh")
    words = re.findall(r"[^\W\d_]+", text.lower())
    scores = {each.code: _score(words, frozenset(each.common.split())) for each in WORDINGS if each.common}
    best = max(scores, key=lambda code: scores[code])
    return of(best) if scores[best] > scores["en"] else ENGLISH


def _score(words: list[str], common: frozenset[str]) -> int:
    return sum(word in common for word in words)
