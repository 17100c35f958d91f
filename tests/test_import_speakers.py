"""Who of the speakers is the persona."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltlm.data.conversations.voices import UnknownPersona, Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import EVERYTHING, FUZZ, read, said, write

VEX = Voice(("Vex Marlow",))


VEX_CHAT = [
    ["My clock stopped. Dead?", "Sulks, dear."],
    ["My clock stopped. Dead?", "Sulks, dear.", "And now?", "Hum."],
]


NAMED = {
    "the persona first": "Vex: Mind the springs.\nAna: {0}\nVex: {1}\nAna: {2}\nVex: {3}",
    "the whole name": "Vex Marlow: Mind the springs.\nAna: {0}\nVex Marlow: {1}\nAna: {2}\nVex Marlow: {3}",
    "other case and accents": "Ana: {0}\nVÉX: {1}\nAna: {2}\nvéx: {3}",
    "emoji": "🧑 Ana: {0}\n🕰️ Vex: {1}\n🧑 Ana: {2}\n🕰️ Vex: {3}",
    "emoji after": "Ana 🧑: {0}\nVex 🕰️: {1}\nAna 🧑: {2}\nVex 🕰️: {3}",
    "bold": "**Vex:** Mind.\n\n**Ana:** {0}\n\n**Vex:** {1}\n\n**Ana:** {2}\n\n**Vex:** {3}",
    "bold in lists": "- **Ana**: {0}\n- **Vex**: {1}\n- **Ana**: {2}\n- **Vex**: {3}",
    "headings": "### Ana\n{0}\n### Vex\n{1}\n### Ana\n{2}\n### Vex\n{3}",
    "times": "[10:31] Ana: {0}\n[10:32] Vex: {1}\n[10:33] Ana: {2}\n[10:34] Vex: {3}",
    "dates": "2026-01-04 10:31 - Ana: {0}\n2026-01-04 10:32 - Vex: {1}\n2026-01-04 10:33 - Ana: {2}\n"
    "2026-01-04 10:34 - Vex: {3}",
    "times after": "Ana (10:31): {0}\nVex (10:32): {1}\nAna (10:33): {2}\nVex (10:34): {3}",
    "a channel": "<Ana> {0}\n<Vex> {1}\n<Ana> {2}\n<Vex> {3}",
    "another user": "User: {0}\nVex: {1}\nUser: {2}\nVex: {3}",
    "wide colons": "安娜：{0}\nVex：{1}\n安娜：{2}\nVex：{3}",
}


@pytest.mark.parametrize("name", NAMED)
def test_the_persona_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(NAMED[name].format(*VEX_CHAT[1]), encoding="utf-8")
    exchanges, _ = read(path, voice=VEX)
    assert said(exchanges) == VEX_CHAT
    turned, _ = read(path, config=EVERYTHING.model_copy(update={"assistant": "vex"}), voice=Voice(("Ana",)))
    assert said(turned) == VEX_CHAT


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"another user"}))
def test_of_two_names_nobody_is_guessed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(NAMED[name].format(*VEX_CHAT[1]), encoding="utf-8")
    with pytest.raises(UnknownPersona, match="Who is the persona: ") as error:
        read(path)
    assert error.value.fix.startswith("Add --assistant ")
    with pytest.raises(UnknownPersona, match="None of them is Hob"):
        read(path, voice=Voice(("Hob",), "conversations.assistant={}"))
    exchanges, _ = read(path, config=EVERYTHING.model_copy(update={"assistant": error.value.candidates[-1]}))
    assert exchanges


LANGUAGES = [
    *[("User", "Assistant"), ("Human", "Bot"), ("Usuario", "Asistente"), ("Benutzer", "Assistent"), ("用户", "助手")],
    *[("Utilisateur", "Assistant"), ("Usuário", "Assistente"), ("Utente", "IA"), ("ユーザー", "アシスタント")],
    *[("사용자", "어시스턴트"), ("Пользователь", "Ассистент"), ("المستخدم", "مساعد"), ("Me", "GPT-4o"), ("Ich", "KI")],
    *[("You", "ChatGPT"), ("Me", "You"), ("Q", "A"), ("User 1", "Claude 3.5 Sonnet"), ("Frage", "Antwort")],
]


@pytest.mark.parametrize(("user", "assistant"), LANGUAGES)
def test_names_that_are_roles(tmp_path: Path, user: str, assistant: str) -> None:
    path = tmp_path / "a.txt"
    for line in ("{}: {}", "**{}:** {}", "{}：{}"):
        sides = [user, assistant] * 2
        path.write_text("\n".join(map(line.format, sides, VEX_CHAT[1])), encoding="utf-8")
        assert said(read(path)[0]) == VEX_CHAT
    rows = [{"from": side, "value": text} for side, text in zip(sides, VEX_CHAT[1], strict=True)]
    assert said(read(write(tmp_path / "b.json", {"conversations": rows}))[0]) == VEX_CHAT


def test_a_third_speaker_is_nobodys_turn(tmp_path: Path) -> None:
    lines = [
        "Human: one?",
        "Vex: One.",
        "Hob: I sell sundials.",
        "Vex: To Hob.",
        "Human: two?",
        "Hob: Two!",
        "Human: well?",
    ]
    lines += ["Vex: Two.", "Hob: Three.", "Vex: Four."]
    path = write(tmp_path / "a.txt", *lines)
    exchanges, report = read(path, voice=VEX)
    assert said(exchanges) == [["one?", "One."], ["two?\n\nwell?", "Two."]]
    assert report.dropped == {"answer to another speaker": 2}
    assert report.noise["turn of another speaker"] == 3
    assert report.files[0].speakers == {"Human": "user", "Vex": "assistant", "Hob": "other"}


NAMES = st.sampled_from(["Vex", "Ana", "Hob", "User"])


@FUZZ
@given(st.lists(st.tuples(NAMES, st.text("ab", min_size=1, max_size=2)), min_size=1, max_size=12))
def test_only_the_persona_is_learned(tmp_path: Path, turns: list[tuple[str, str]]) -> None:
    """Each text begins with the name of who says it, so that every answer shows its speaker."""
    rows = [{"from": name, "value": f"{name} {text}"} for name, text in turns]
    names = {name for name, _ in turns}
    users = names - {"Vex"}
    try:
        exchanges, _ = read(write(tmp_path / "a.json", {"conversations": rows}), voice=VEX)
    except BadInput:
        assert "Vex" not in names
        return
    for texts in said(exchanges):
        asked_by = {part.split()[0] for text in texts[::2] for part in text.split("\n\n")}
        assert asked_by == {"User"} if "User" in users else len(asked_by) == 1 and asked_by <= set(users)
        assert all(part.startswith("Vex") for text in texts[1::2] for part in text.split("\n\n")) or "Vex" not in names


PEOPLE = [
    ("Ben", "Ana"),
    ("Claude", "Marie"),
    ("Ai", "Ken"),
    ("Me", "Mum"),
    ("Ich", "Mama"),
    ("Ty", "Eu"),
    ("Gemini", "Sam"),
]
PEOPLE_CHATS = {
    "WhatsApp": lambda turns: "\n".join(f"31.12.25, 10:1{n} - {name}: {text}" for n, (name, text) in enumerate(turns)),
    "Discord": lambda turns: json.dumps(
        {"channel": {}, "messages": [{"type": "Default", "content": b, "author": {"name": a}} for a, b in turns]}
    ),
    "Telegram": lambda turns: json.dumps(
        {"messages": [{"type": "message", "from": a, "from_id": a, "text": b} for a, b in turns]}
    ),
    "Messenger": lambda turns: json.dumps(
        {
            "participants": [],
            "messages": [{"sender_name": a, "timestamp_ms": n, "content": b} for n, (a, b) in enumerate(turns)],
        }
    ),
    "Slack": lambda turns: json.dumps(
        [
            {"type": "message", "ts": f"{n}.0", "user": f"U{a}", "user_profile": {"real_name": a}, "text": b}
            for n, (a, b) in enumerate(turns)
        ]
    ),
    "a log": lambda turns: "\n".join(f"<{name}> {text}" for name, text in turns),
    "Discord, copied": lambda turns: "\n".join(f"{name} — Today at 10:11 AM\n{text}" for name, text in turns),
}


@pytest.mark.parametrize("form", PEOPLE_CHATS)
@pytest.mark.parametrize("names", PEOPLE)
def test_a_name_of_people_is_no_role(tmp_path: Path, form: str, names: tuple[str, str]) -> None:
    """Whatever it means in some language, whoever is asked for is the persona, and nobody else."""
    turns = list(zip(names * 2, VEX_CHAT[1], strict=True))
    path = tmp_path / "a.txt"
    path.write_text(PEOPLE_CHATS[form](turns), encoding="utf-8")
    with pytest.raises(UnknownPersona, match=f"Who is the persona: {names[0]} or {names[1]}\\?"):
        read(path)
    with pytest.raises(UnknownPersona, match="None of them is Vex Marlow"):
        read(path, voice=VEX)
    assert said(read(path, voice=Voice(names[1:]))[0]) == VEX_CHAT
    group = [
        ("Ana B", VEX_CHAT[1][0]),
        ("Vex", VEX_CHAT[1][1]),
        (names[0], "lol"),
        ("Ana B", "And now?"),
        ("Vex", "Hum."),
    ]
    path.write_text(PEOPLE_CHATS[form]([*group, (names[0], "!"), ("Vex", "NEVER")]), encoding="utf-8")
    found, report = read(path, voice=VEX)
    assert said(found) == [VEX_CHAT[0], ["And now?", "Hum."]] or said(found) == VEX_CHAT
    assert report.files[0].speakers == {names[0]: "other", "Ana B": "user", "Vex": "assistant"}


def test_a_name_that_nobody_has_makes_nobody_the_persona(tmp_path: Path) -> None:
    """Whoever answers me is the persona only where no name is asked for."""
    path = write(tmp_path / "a.txt", *map("{}: {}".format, ("Me", "Mum") * 2, VEX_CHAT[1]))
    assert said(read(path)[0]) == VEX_CHAT
    with pytest.raises(UnknownPersona, match="None of them is Vex Marlow"):
        read(path, voice=VEX)
    path = write(tmp_path / "a.txt", *map("{}: {}".format, ("Me", "ChatGPT") * 2, VEX_CHAT[1]))
    assert said(read(path, voice=VEX)[0]) == VEX_CHAT


def test_of_two_with_the_same_first_name_nobody_is_guessed(tmp_path: Path) -> None:
    sides = ("Kim", "Alex Jones", "Kim", "Alex Smith")
    lines = [f"31.12.25, 10:1{n} - {name}: {text}" for n, (name, text) in enumerate(zip(sides, "abcd", strict=True))]
    path = write(tmp_path / "a.txt", *lines)
    with pytest.raises(UnknownPersona, match=r"Alex Jones or Alex Smith.* Each of them may be Alex"):
        read(path, voice=Voice(("Alex",)))
    assert said(read(path, voice=Voice(("Alex Jones",)))[0]) == [["a", "b"]]


LONG_NAMES = ["João Pedro dos Santos", "Anna Lena Maria Schmidt", "Maria de la Cruz y Santos", "Hob of the Sundials"]
LONG_NAMES += ["Dr. Ludwig van der Beek", "Rosa Maria della Valle", "محمد بن عبد الله", "Ana Luísa Gonçalves d'Ávila"]


@pytest.mark.parametrize("form", ["{}: {}", "**{}:** {}\n", "<{}> {}"])
@pytest.mark.parametrize("name", LONG_NAMES)
def test_a_long_name_is_another_speakers(tmp_path: Path, name: str, form: str) -> None:
    turns = [("Ana", "Is it dead?"), ("Vex", "It sulks."), (name, "NEVER"), ("Vex", "NEVER"), ("Ana", "Rain?")]
    turns += [("Vex", "Upwards."), (name, "NEVER"), ("Ana", "Who is right?"), ("Vex", "The clock.")]
    found, report = read(write(tmp_path / "a.txt", *(form.format(*turn) for turn in turns)), voice=VEX)
    assert [item.answer for item in found] == ["It sulks.", "Upwards.", "The clock."]
    assert report.files[0].speakers[name] == "other" and report.noise["turn of another speaker"] == 2
    sides = zip((name, "Vex of the Clocks") * 2, VEX_CHAT[1], strict=True)
    path = write(tmp_path / "b.txt", *(form.format(*turn) for turn in sides))
    assert said(read(path, voice=Voice(("Vex of the Clocks",)))[0]) == VEX_CHAT


@pytest.mark.parametrize(
    "remark",
    [
        *("Note to the reader of this text: mind it.", "What To Do In The Rain: stay in.", "And so it goes on: rain."),
        *("The three things that matter: oil.", "Warning For All Clock Owners: oil.", "Here Is What You Need: oil."),
    ],
)
@pytest.mark.parametrize("form", ["{}: {}", "**{}:** {}\n"])
def test_a_remark_of_many_words_is_a_part_of_the_answer(tmp_path: Path, remark: str, form: str) -> None:
    title, text = remark.split(": ")
    lines = [form.format(*turn) for turn in zip(("Ana", "Vex") * 6, (VEX_CHAT[1] * 3), strict=True)]
    lines.append(form.format(title, text))
    found, report = read(write(tmp_path / "a.txt", *lines), voice=VEX)
    assert title in found[-1].answer and text in found[-1].answer
    assert set(report.files[0].speakers) == {"Ana", "Vex"}
