"""Who is the persona and who is the user, where a conversation names its speakers and tells no roles.

A reader yields such turns as `Turn("", text, speaker=name)`. `assign` gives them roles: the persona's name is the
assistant, and names that are roles in some language (User, Assistant, Usuario, 助手) are what they say. Of two names
that say nothing, nobody guesses. In chats between people every name says nothing: Ben is no user, although the word is
Turkish for I.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from moltlm.data.conversations.marks import is_judgement
from moltlm.data.conversations.turns import MACHINE, OTHER, ROLES, Fail, FileReport, Turn
from moltlm.data.errors import BadInput

USERS = """
user human me you i prompt prompter question q usuario usuaria utilizador utilizadora utilisateur utilisatrice utente
benutzer benutzerin nutzer nutzerin anwender anwenderin mensch ich du yo tú usted eu você moi toi vous io humano humain
umano kullanıcı ben sen użytkownik ja ty gebruiker ik jij användare jag bruger bruker jeg käyttäjä minä uživatel já
používateľ felhasználó utilizator χρήστης εγώ пользователь человек я ты вы користувач потребител корисник משתמש אני
مستخدم المستخدم أنا उपयोगकर्ता मैं pengguna saya tôi ผู้ใช้ 用户 用戶 使用者 人类 人類 我 你 您 ユーザー ユーザ 人間 私 僕
あなた 사용자 유저 사람 나 당신 pregunta pergunta frage domanda vraag вопрос 问 問 提问 質問 질문
👤 👥 🧑 👩 👨 🙂 🙋
"""
ASSISTANTS = """
assistant assistants asistente assistente assistentin assistenten ayudante asystent asistent assistent asistan yardımcı
asszisztens avustaja βοηθός ассистент помощник асистент помічник עוזר مساعد المساعد सहायक asisten ผู้ช่วย 助手 助理
アシスタント 어시스턴트 도우미 ai ia ki ии 人工智能 机器人 機器人 ボット 챗봇 봇 bot chatbot model modelo modell modèle
modello модель chatgpt gpt claude gemini bard bing copilot llama mistral mixtral deepseek grok qwen kimi perplexity
char
answer a response reply respuesta resposta réponse antwort risposta antwoord ответ 回答 答 答复 回复 答え 답변 🤖 🦾
"""
FIRST_NAMES = frozenset(("ai", "ben", "claude", "ty"))
"""Words for roles that are names of people too."""
SYSTEM = "system developer sistema système systeem система 系统 系統 システム 시스템"
NARRATORS = "narrator narrador narradora erzähler erzählerin narrateur narratore рассказчик 旁白 ナレーター storyteller"
SECOND_PERSON = "you du tú você tu toi vous ты вы 你 您 あなた"
PHRASES = dict.fromkeys(("o chatgpt", "o gemini", "o copilot", "o claude"), "assistant")
"""Names with the article that Portuguese has before them."""
PHRASES |= {"ai assistant": "assistant", "virtual assistant": "assistant", "người dùng": "user", "trợ lý": "assistant"}
MODELS = re.compile(r"(chatgpt|gpt|claude|gemini|bard|copilot|llama|mistral|mixtral|deepseek|grok|qwen|kimi) ?\d.*")
NUMBERED = re.compile(r"(.+?) ?\d{1,3}")
TITLES = """
the a an dr mr mrs ms miss prof professor sir lady lord captain st el la los las le les o os as der die das don dona
herr frau
"""


OTHERS = frozenset(("s", "and", "und", "et", "och", "og", "и", "to"))
"""Words after a first name by which a label means something else: `Vex's clock`, `Vex and Ana`, `Vex to Ana`."""


class UnknownPersona(BadInput):
    """Nothing tells which of these speakers is the persona.

    Args:
        candidates: the speakers, in the order in which they first speak.
    """

    def __init__(self, where: str, candidates: Sequence[str], voice: Voice) -> None:
        namesakes = voice.namesakes(candidates)
        names = list((namesakes if len(namesakes) > 1 else candidates)[:6])
        listed = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
        remark = f" None of them is {voice.names[0]}." if voice.names else ""
        remark = f" Each of them may be {voice.names[0]}." if len(namesakes) > 1 else remark
        super().__init__(f"{where}Who is the persona: {listed}?{remark}", f"Add {voice.naming(names[0])}")
        self.candidates = names


@dataclass(frozen=True)
class Voice:
    """Whose answers are learned.

    Args:
        names: what the persona is called: its name, nicknames, first name.
        option: how a user states the name, with `{}` wherever it goes.
    """

    names: tuple[str, ...] = ()
    option: str = "--assistant {}"

    def naming(self, name: str) -> str:
        """The option that says that the persona is `name`, as typed in a shell."""
        quoted = shlex.quote(name)
        return self.option.format(*[quoted] * self.option.count("{}"))

    def among(self, labels: Iterable[str]) -> list[str]:
        """The labels that name the persona: equal but for case, accents and emoji, or else by the first name, if it is
        that of one label alone."""
        labels, names = list(labels), [plain(name) for name in self.names if name.strip()]
        namesakes = self.namesakes(labels)
        exact = [label for label in labels if plain(label) in names]
        return exact or (namesakes if len({plain(label) for label in namesakes}) == 1 else [])

    def namesakes(self, labels: Iterable[str]) -> list[str]:
        """The labels that have the persona's first name, and nothing that says that it is somebody else's."""
        names = [plain(name) for name in self.names if name.strip()]
        return [label for label in labels if any(_same_first_name(plain(label), name) for name in names)]


def _same_first_name(label: str, name: str) -> bool:
    """Whether one of the two is only the first name of the other."""
    short, long = sorted((label.split(), name.split()), key=len)
    long = [word for word in long if word not in TITLES.split()]
    is_of_others = bool(OTHERS.intersection(label.split()))
    return len(short) == 1 and len(long) > 1 and len(short[0]) > 1 and short[0] == long[0] and not is_of_others


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """The name in lower case, without accents, emoji and punctuation."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalnum() else " " for c in letters).split()) or name.strip()


def plain_words(text: str) -> frozenset[str]:
    """The words of a text, each as `plain` gives it."""
    return frozenset(plain(word) for word in text.split())


ROLE_WORDS = {
    **dict.fromkeys(plain_words(USERS), "user"),
    **dict.fromkeys(plain_words(ASSISTANTS), "assistant"),
    **dict.fromkeys(plain_words(SYSTEM), "system"),
    **dict.fromkeys(plain_words(NARRATORS), OTHER),
    **{plain(phrase): role for phrase, role in PHRASES.items()},
}


def role_word(label: str) -> str:
    """The role that a label states in some language (OTHER for a narrator), or ""."""
    name = plain(label)
    if MODELS.fullmatch(name):
        return "assistant"
    numbered = NUMBERED.fullmatch(name)
    return ROLE_WORDS.get(name) or ROLE_WORDS.get(numbered[1] if numbered else "", "")


def are_roles(labels: Iterable[str]) -> bool:
    """Whether the labels are roles of both sides, of which one at least is no name of people too."""
    words = {plain(label): word for label in set(labels) if (word := role_word(label)) in ("user", "assistant")}
    return len(set(words.values())) == 2 and not FIRST_NAMES.issuperset(words)


def same_spelling(labels: Iterable[str]) -> list[str]:
    """The labels, those that differ only in case, accents or emoji as the first of them."""
    first: dict[str, str] = {}
    return [first.setdefault(plain(label), label) for label in labels]


def roles_of(
    labels: Sequence[str],
    voice: Voice,
    stated: frozenset[str] = frozenset(),
    where: str = "",
    by_name: bool = False,
) -> dict[str, str]:
    """The role of each speaker: user, assistant, system, or OTHER for whoever is neither.

    The persona's name is the assistant; without it, a label that is a role; without that, and if no name is asked for,
    whoever else answers the user. The user is whoever is called so, or else the speaker whom the assistant answers most
    often.

    Args:
        labels: the speakers of a conversation, one for each turn, in order.
        stated: roles that other turns of the conversation state.
        where: the beginning of an error, which names the place.
        by_name: no label is a role, unless the labels are roles of both sides.

    Raises:
        UnknownPersona: if nothing tells the assistant.
    """
    by_name = by_name and not are_roles(labels)
    counts = Counter(labels)
    persona = voice.among(counts)
    words = {label: "" if by_name or label in persona else role_word(label) for label in counts}
    if "assistant" not in {*words.values(), *stated}:  # Ben is no user where nobody is called the assistant
        words |= {label: "" for label in words if plain(label) in FIRST_NAMES}
    users = [label for label, word in words.items() if word == "user"]
    assistants = persona or [label for label, word in words.items() if word == "assistant"]
    if not assistants and "assistant" not in stated:
        assistants = _speaking_for_you(users)
        users = [label for label in users if label not in assistants]
    system = [label for label, word in words.items() if word == "system"]
    narrators = [label for label, word in words.items() if word == OTHER]
    rest = [label for label in counts if label not in (*users, *assistants, *system, *narrators)]
    if not assistants and "assistant" not in stated:
        is_told = "user" in stated or (users and not voice.names)
        assistants = _answering(labels, users, rest) if is_told else []
        if not assistants:
            raise UnknownPersona(where, rest if len(rest) > 1 else list(counts), voice)
        rest = [label for label in rest if label not in assistants]
    if rest and not users and "user" not in stated:
        answered = Counter(before for before, after in pairwise(labels) if after in assistants)
        users = [max(rest, key=lambda label: (answered[label], counts[label]))]
        rest = [label for label in rest if label not in users]
    return {
        **dict.fromkeys((*rest, *narrators), OTHER),
        **dict.fromkeys(system, "system"),
        **dict.fromkeys(users, "user"),
        **dict.fromkeys(assistants, "assistant"),
    }


def _speaking_for_you(users: list[str]) -> list[str]:
    """Of `Me:` and `You:`, the user is me."""
    you = [label for label in users if plain(label) in plain_words(SECOND_PERSON)]
    return you if len(you) < len(users) else []


def _answering(labels: Sequence[str], users: list[str], rest: list[str]) -> list[str]:
    """The only speaker besides the users, or the only one that ever speaks right after them."""
    if len(rest) < 2:
        return rest
    following = {after for before, after in pairwise(labels) if before in users and after in rest}
    return list(following) if len(following) == 1 else []


def assign(
    turns: Iterable[Turn], voice: Voice, report: FileReport, fail: Fail, by_name: bool = False
) -> Iterator[Turn]:
    """Give every turn a role. From the first turn without one, the rest of the conversation is held in memory.

    Args:
        by_name: the speakers are people.

    Raises:
        UnknownPersona: if nothing tells the assistant.
    """
    turns, stated = iter(turns), set()
    for turn in turns:
        if turn.role:
            stated.add(turn.role)
            yield turn
            continue
        remaining = [turn, *turns]
        stated |= {each.role for each in remaining if each.role}
        labels = same_spelling(each.speaker for each in remaining if not each.role)
        if len(set(labels)) == 1 and not stated & {"user", "assistant"} and not voice.among(labels):
            roles = ", ".join(ROLES)
            raise fail(f"a message needs a role ({roles}) and a content; found {labels[0]}.")
        roles = roles_of(labels, voice, frozenset(stated), where=fail("").what, by_name=by_name)
        by_plain = {plain(label): role for label, role in roles.items()}
        report.speakers |= {label: role for label, role in roles.items() if label not in report.speakers}
        yield from (each if each.role else _with_role(each, by_plain[plain(each.speaker)]) for each in remaining)


def _with_role(turn: Turn, role: str) -> Turn:
    """The turn of this role. What somebody thinks of a question says nothing against its answer."""
    unwanted = "" if role == "user" and is_judgement(turn.unwanted) else turn.unwanted
    return turn._replace(role=role, unwanted=unwanted)


def runs(turns: Iterable[Turn], report: FileReport) -> Iterator[list[Turn]]:
    """Group consecutive turns of one side. Turns of other speakers and of the system are left out and counted.

    An assistant's turn after another speaker's (or a machine's) answers that speaker: it gets the role OTHER (or
    MACHINE), and is never joined to an answer to the user. Nor are turns of one side joined of which only one may be
    learned.
    """
    run, interrupted = list[Turn](), ""
    for turn in turns:
        if turn.role in (OTHER, MACHINE):
            report.noise["turn of another speaker"] += turn.role == OTHER
            interrupted = turn.role
        elif turn.role == "system":
            report.noise["system message"] += 1
        else:
            interrupted = interrupted if turn.role != "user" else ""
            turn = turn._replace(role=interrupted) if interrupted else turn
            if run and (turn.role != run[0].role or _side(turn) != _side(run[0])):
                yield run
                run = []
            run.append(turn)
    if run:
        yield run


def _side(turn: Turn) -> tuple[str, bool, str]:
    return turn.role, turn.context_only and turn.role == "assistant", turn.unwanted
