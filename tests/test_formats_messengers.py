"""Chats between people: nobody's words are learned as another's, and what the messenger itself writes is left out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moltlm.data.conversations import notices, whatsapp
from moltlm.data.conversations.voices import UnknownPersona, Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said, write

VEX = Voice(("Vex",))
CHAT = [["My clock: stopped.", "It sulks."], ["My clock: stopped.", "It sulks.", "And if not?", "Bring cake."]]
TEXTS = CHAT[1]
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

STAMPS = {
    "iOS, United States": "[12/31/25, 11:4{}:26\u202fPM] {}: {}",
    "iOS, Germany": "[31.12.25, 23:4{}:26] {}: {}",
    "iOS, China": "[2025/12/31 下午11:4{}:11] {}: {}",
    "iOS, Korea": "[2025. 12. 31. 오후 11:4{}:11] {}: {}",
    "iOS, a stranger": "[31/12/25, 23:4{}:10] ~\u202f{}: {}",
    "iOS, marked": "\u200e[31/12/2025, 11:4{}:26] {}: {}",
    "iOS, Vietnam": "[23:4{}:00, 31/12/2025] {}: {}",
    "Android, United States": "12/31/25, 11:4{}\u202fPM - {}: {}",
    "Android, India": "31/12/25, 11:4{} pm - {}: {}",
    "Android, Germany": "31.12.25, 23:4{} - {}: {}",
    "Android, France": "31/12/2025 à 23:4{} - {} : {}",
    "Android, Spain": "31/12/25, 11:4{} p. m. - {}: {}",
    "Android, Brazil": "31/12/2025 23:4{} - {}: {}",
    "Android, Netherlands": "31-12-2025 23:4{} - {}: {}",
    "Android, Sweden": "2025-12-31 23:4{} - {}: {}",
    "Android, Finland": "31.12.2025 klo 23.4{} - {}: {}",
    "Android, Hungary": "2025. 12. 31. 23:4{} - {}: {}",
    "Android, Bulgaria": "31.12.2025 г., 23:4{} ч. - {}: {}",
    "Android, Egypt": "\u200f٣١/١٢/٢٠٢٥، ١١:٤{} م - {}: {}",
    "Android, Japan": "2025/12/31 23:4{} - {}: {}",
    "Android, Taiwan": "2025/12/31 下午11:4{} - {}: {}",
    "Android, Arabic with marks": "31\u200f/12\u200f/2025, 11:4{} م - {}: {}",
    "Android, Arabic digits with marks": "٣١\u200f/١٢\u200f/٢٠٢٥، ١١:٤{} م - {}: {}",
    "iOS, Arabic": "\u200f[31\u200f/12\u200f/2025, 11:4{}:26 م] {}: {}",
    "Android, Iran": "۱۴۰۴/۱۰/۱۰،\u200f ۲۳:۴{} - {}: {}",
    "Android, Greece": "31/12/25, 11:4{} μ.μ. - {}: {}",
    "Android, Quebec": "2025-12-31 23 h 4{} - {}: {}",
    "iOS, Quebec": "[2025-12-31 23 h 4{} min 10 s] {}: {}",
    "Android, Albania": "31.12.25, 11:4{} e pasdites - {}: {}",
    "Android, Tamil": "31/12/25, பிற்பகல் 11:4{} - {}: {}",
    "Android, Kannada": "31/12/25, 11:4{} ಅಪರಾಹ್ನ - {}: {}",
    "Android, Sri Lanka": "2025-12-31, ප.ව. 11.4{} - {}: {}",
    "Android, Israel by half days": "31.12.2025, 11:4{} אחה״צ - {}: {}",
    "Android, China": "2025年12月31日 下午11:4{} - {}: {}",
    "Android, Korea": "2025년 12월 31일 오후 11:4{}, {} : {}",
}


def chat(stamp: str) -> str:
    return "\n".join(
        stamp.format(n, name, text) for n, (name, text) in enumerate(zip(["Ana", "Vex"] * 2, TEXTS, strict=True))
    )


@pytest.mark.parametrize("place", STAMPS)
def test_whatsapp_dates(tmp_path: Path, place: str) -> None:
    path = tmp_path / "_chat.txt"
    path.write_text(chat(STAMPS[place]), encoding="utf-8")
    found, report = read(path, voice=VEX)
    assert said(found) == CHAT
    assert report.formats == {"WhatsApp": 2}
    with pytest.raises(UnknownPersona, match="Who is the persona: Ana or Vex"):
        read(path)


ANDROID = """31/12/2025, 11:40 - Messages and calls are end-to-end encrypted. Only people in this chat can read them: all.
31/12/2025, 11:40 - Ana created group "Clocks: the repair"
31/12/2025, 11:41 - Ana: My clock: stopped.
31/12/2025, 11:42 - Vex: {omitted}
31/12/2025, 11:42 - Vex: It sulks. <{edited}>
31/12/2025, 11:43 - Vex: {deleted}
31/12/2025, 11:43 - Ana: And if not?
31/12/2025, 11:44 - Vex: Bring cake.
31/12/2025, 11:45 - Ana: {omitted}
31/12/2025, 11:45 - Vex: NEVER: what a picture.
31/12/2025, 11:46 - Hob: I sell sundials.
31/12/2025, 11:46 - Vex: NEVER: no sundials.
31/12/2025, 11:47 - Your security code with Vex changed. Tap to learn more.
"""
PHRASES = [
    ("<Media omitted>", "This message was edited", "This message was deleted"),
    ("<Medien ausgeschlossen>", "Diese Nachricht wurde bearbeitet.", "Diese Nachricht wurde gelöscht."),
    ("<Multimedia omitido>", "Se editó este mensaje.", "Se eliminó este mensaje."),
    ("<Médias omis>", "Ce message a été modifié", "Ce message a été supprimé"),
    ("<Mídia oculta>", "Mensagem editada", "Mensagem apagada"),
    ("<Media omessi>", "Questo messaggio è stato modificato", "Questo messaggio è stato eliminato"),
    ("\u200eIMG-20251231-WA0001.jpg (file attached)", "已编辑", "null"),
    ("DOC-1.pdf (Datei angehängt)", "This message was edited", "Missed voice call"),
]


@pytest.mark.parametrize(("omitted", "edited", "deleted"), PHRASES)
def test_what_whatsapp_writes_itself_is_nobodys_turn(tmp_path: Path, omitted: str, edited: str, deleted: str) -> None:
    path = write(tmp_path / "a.txt", ANDROID.format(omitted=omitted, edited=edited, deleted=deleted))
    found, report = read(path, voice=VEX)
    assert said(found) == CHAT
    assert report.dropped == {"empty question": 1, "answer to another speaker": 1}
    assert report.noise["attachment"] == 2
    assert report.noise["system message"] == 4


def test_whatsapp_of_ios(tmp_path: Path) -> None:
    lines = [
        "[31/12/2025, 11:40:26] Clocks: \u200eMessages and calls are end-to-end encrypted.",
        "[31/12/2025, 11:41:00] Ana: My clock: stopped.",
        "[31/12/2025, 11:42:00] Vex: It sulks. \u200e<This message was edited>",
        "\u200e[31/12/2025, 11:42:10] Vex: \u200eimage omitted",
        "\u200e[31/12/2025, 11:42:11] Vex: \u200e<attached: 0001-PHOTO.jpg>",
        "[31/12/2025, 11:43:00] Ana: And if not?",
        "second line",
        "",
        "third: line",
        "[31/12/2025, 11:44:00] Vex: Bring cake.",
        "\u200e[31/12/2025, 11:44:10] Vex: \u200eThis message was deleted.",
    ]
    found, report = read(write(tmp_path / "a.txt", *lines), voice=VEX)
    assert said(found)[1] == [*TEXTS[:2], "And if not?\nsecond line\n\nthird: line", TEXTS[3]]
    assert report.noise["attachment"] == 2
    assert report.noise["system message"] == 2


def telegram(**more: Any) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = [{"type": "service", "actor": "Ana", "action": "phone_call", "text": ""}]
    for number, text in enumerate(TEXTS):
        name = "Vex" if number % 2 else "Ana"
        kinds.append({"type": "message", "from": name, "from_id": f"user{number % 2}", "text": text})
    kinds[2]["text"] = ["It ", {"type": "italic", "text": "sulks"}, "."]
    kinds.insert(3, {**kinds[2], "text": "", "media_type": "sticker", "file": "x"})
    kinds.insert(3, {**kinds[2], "text": "NEVER", "forwarded_from": "Bob"})
    return {"name": "Vex", "type": "personal_chat", "id": 1, "messages": kinds, **more}


def test_telegram(tmp_path: Path) -> None:
    path = write(tmp_path / "result.json", json.dumps(telegram(), indent=1))
    found, report = read(path, voice=VEX)
    assert said(found) == CHAT
    assert report.noise["forwarded message"] == report.noise["attachment"] == report.noise["system message"] == 1
    with pytest.raises(UnknownPersona):
        read(path)


def test_a_command_to_a_bot_is_no_question(tmp_path: Path) -> None:
    """The greeting after `/start` and the menu after `/settings` answer nobody."""
    chat = telegram()
    start = {**chat["messages"][1], "text": [{"type": "bot_command", "text": "/start"}, " ref_7"]}
    menu = {**start, "text": [{"type": "bot_command", "text": "/settings"}, ""]}
    greeting = {**chat["messages"][2], "text": "NEVER"}
    chat["messages"] = [start, greeting, *chat["messages"], menu, greeting]
    found, report = read(write(tmp_path / "a.json", json.dumps(chat)), voice=VEX)
    assert said(found) == CHAT
    assert report.noise["command to a bot"] == 2 and report.dropped == {"answer to a machine": 2}


@pytest.mark.parametrize("sign", ["👎", {"name": "👎", "code": "thumbsdown"}, {"name": "-1"}])
def test_an_answer_with_a_thumb_down_is_not_learned(tmp_path: Path, sign: Any) -> None:
    chat = telegram() if isinstance(sign, str) else discord()
    for message in chat["messages"]:  # what somebody thinks of a question does not matter
        message["reactions"] = (
            [{"emoji": sign, "count": 1}] if str(message).count("Bring") or "Ana" in str(message) else []
        )
    found, report = read(write(tmp_path / "a.json", json.dumps(chat)), voice=VEX)
    assert said(found) == CHAT[:1]
    assert report.dropped["marked thumbs down"] == 1


def test_telegram_of_all_chats_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "result.json", json.dumps({"about": "", "chats": {"list": [telegram()]}}, indent=1))
    with pytest.raises(BadInput, match="This is a Telegram export of all chats") as error:
        read(path)
    assert error.value.fix.startswith("Export one chat as JSON")


def discord(**more: Any) -> dict[str, Any]:
    authors = {
        name: {"id": name, "name": name.lower() + "_1", "nickname": name, "isBot": False}
        for name in ("Ana", "Vex", "Bob")
    }
    rows = [("Default", "Ana", TEXTS[0]), ("Reply", "Vex", TEXTS[1]), ("GuildMemberJoin", "Bob", "joined")]
    rows += [
        ("Default", "Ana", TEXTS[2]),
        ("19", "Vex", TEXTS[3]),
        ("Default", "Bob", "Hi"),
        ("Default", "Vex", "NEVER"),
    ]
    messages = [{"type": kind, "content": text, "author": authors[name], "embeds": []} for kind, name, text in rows]
    return {"guild": {"name": "Direct Messages"}, "channel": {"name": "Vex"}, "messages": messages, **more}


def test_discord(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps(discord(), indent=1))
    found, report = read(path, voice=VEX)
    assert said(found) == CHAT
    assert report.dropped == {"answer to another speaker": 1}
    with pytest.raises(UnknownPersona):
        read(path)
    with pytest.raises(BadInput, match="Discord's data package"):
        read(
            write(
                tmp_path / "messages.json",
                json.dumps([{"ID": 1, "Timestamp": "x", "Contents": "Hi", "Attachments": ""}]),
            )
        )


def test_instagram_and_messenger(tmp_path: Path) -> None:
    sides = zip(["Ana", "Véx"] * 2, TEXTS, strict=True)
    messages = [
        {"sender_name": name.encode().decode("latin-1"), "timestamp_ms": number, "content": text}
        for number, (name, text) in enumerate(sides)
    ]
    messages.insert(2, {**messages[1], "photos": [{}]})
    del messages[2]["content"]
    row = {"participants": [{"name": "Ana"}], "messages": messages[::-1]}
    found, report = read(write(tmp_path / "a.json", json.dumps(row, indent=1)), voice=Voice(("Véx",)))
    assert said(found) == CHAT
    assert report.noise["attachment"] == 1


lines = st.lists(
    st.sampled_from(
        [
            *(
                "[31/12/2025, 11:40:26] Ana: ",
                "31/12/25, 11:40 - Vex: ",
                "\u200e",
                "<Media omitted>",
                "\n",
                ": ",
                "- ",
                "[",
            ),
            *(
                "31.12.25",
                ", 23:40",
                "오후",
                " p. m.",
                "This message was deleted",
                "Ana",
                "null",
                " <This message was edited>",
            ),
        ]
    )
    | st.text(max_size=5),
    max_size=15,
)


@FUZZ
@given(lines)
def test_any_chat_is_an_error_or_a_result(tmp_path: Path, parts: list[str]) -> None:
    text = "[31/12/2025, 11:40:26] Ana: hi\n" + "".join(parts)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", errors="replace")
    try:
        read(tmp_path / "a.txt", voice=VEX)
    except BadInput as error:
        assert error.fix


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1.",
        "1/1/1",
        "[",
        "\u200e",
        "a ",
        "<",
        "31/12/2025, 11:40 - ",
        "a.b (",
        "오후",
        ": ",
        "a • ",
        " \u200e",
        "a: b (1 c)\n",
    ],
)
def test_a_line_of_whatsapp_takes_linear_time(unit: str) -> None:
    """Two hundred thousand characters of what makes expressions backtrack."""
    text = unit * (200_000 // len(unit))
    start = time.process_time()
    for expression in (
        *(whatsapp.BEGINNING, whatsapp.OMITTED, whatsapp.DELETED, whatsapp.PLACE, whatsapp.POLL, whatsapp.DOCUMENT),
        *(notices.BY_NAME, notices.META, notices.REACTED),
    ):
        expression.match(text)
    for expression in (whatsapp.EDITED, whatsapp.OWN_WORDS, whatsapp.IOS_MEDIA, notices.THING, notices.SENT):
        expression.search(text)
    assert time.process_time() - start < 2


def test_notices_of_messenger_are_nobodys_words(tmp_path: Path) -> None:
    rows = [("Ana", "My clock stopped."), ("Vex", "It sulks."), ("Vex", "Vex sent an attachment.")]
    rows += [("Ana", "Reacted ❤ to your message"), ("Ana", "And if not?"), ("Vex", "Bring cake.")]
    messages = [{"sender_name": a, "timestamp_ms": n, "content": b} for n, (a, b) in enumerate(rows)]
    messages.append({"sender_name": "Ana", "timestamp_ms": 9, "content": "NEVER", "is_unsent": True})
    chat = {"participants": [{"name": "Ana"}, {"name": "Vex"}], "messages": messages[::-1]}
    found, report = read(write(tmp_path / "a.json", json.dumps(chat)), voice=Voice(("Vex",)))
    assert said(found)[-1] == ["My clock stopped.", "It sulks.", "And if not?", "Bring cake."]
    assert report.noise["system message"] == 2 and report.noise["deleted message"] == 1
    newer = [
        {"senderName": a, "timestamp": n, "text": b, "isUnsent": b.startswith("Vex")} for n, (a, b) in enumerate(rows)
    ]
    chat = {"participants": ["Ana", "Vex"], "threadName": "Vex_1", "messages": newer[::-1]}
    found, report = read(write(tmp_path / "b.json", json.dumps(chat)), voice=Voice(("Vex",)))
    assert found[-1].answer == "Bring cake." and report.noise["deleted message"] == 1


def slack(user: str, text: str, ts: float, name: str = "", **more: Any) -> dict[str, Any]:
    profile = {"user_profile": {"display_name": name, "real_name": f"{name} Lee"}} if name else {}
    return {"type": "message", "user": user, "text": text, "ts": f"{ts:.6f}", **profile, **more}


SLACK = [
    slack("U1", "<@U1> has joined the channel", 1, "Ana", subtype="channel_join"),
    slack("U1", "<@U2> My clock: stopped. &amp; <https://a.example/b|see>", 2, "Ana"),
    slack("U2", "It sulks.", 3, "Vex"),
    slack("U1", "What of the spring?", 4, "Ana", thread_ts="4.000000"),
    slack("U1", "And if not?", 5),
    slack("U2", "Wait for rain.", 6, thread_ts="4.000000"),
    slack("U2", "Bring cake.", 7),
]


def test_slack_by_the_profiles_of_users(tmp_path: Path) -> None:
    """Threads are conversations of their own, and names stand for codes."""
    found, report = read(write(tmp_path / "2026-01-01.json", SLACK), voice=VEX)
    first = "@Vex My clock: stopped. & see"
    assert said(found) == [
        [first, "It sulks."],
        [first, "It sulks.", "And if not?", "Bring cake."],
        ["What of the spring?", "Wait for rain."],
    ]
    assert report.formats == {"Slack": 3}
    assert report.noise["system message"] == 1


def test_slack_newest_first_and_of_a_bot(tmp_path: Path) -> None:
    bot = {"subtype": "bot_message", "bot_id": "B1", "username": "Vex", "text": "It sulks.", "ts": "3.0"}
    rows = [bot, slack("U1", "My clock: stopped.", 2)]
    assert said(read(write(tmp_path / "a.json", rows), voice=VEX)[0]) == [CHAT[0]]


def test_slack_without_profiles_asks_for_a_code(tmp_path: Path) -> None:
    rows = [slack("U1", "My clock: stopped.", 2), slack("U2", "It sulks.", 3)]
    with pytest.raises(UnknownPersona, match="U1 or U2"):
        read(write(tmp_path / "a.json", rows))
    assert said(read(write(tmp_path / "a.json", rows), voice=Voice(("U2",)))[0]) == [CHAT[0]]


HIDDEN = [("Ana", TEXTS[0]), ("Vex", TEXTS[1]), ("Ana", None), ("Vex", "NEVER"), ("Ana", TEXTS[2]), ("Vex", TEXTS[3])]
"""A chat in which a question cannot be read: what Vex says to it belongs to no answer."""
SEEN = [TEXTS[:2], TEXTS[2:]]


def assert_unseen(path: Path, kind: str, reason: str = "empty question") -> None:
    found, report = read(path, voice=VEX)
    assert said(found) == SEEN
    assert report.dropped == {reason: 1}
    assert report.noise[kind] == 1


WHATSAPP_NOTICES = [
    *("This message was deleted", "Ta wiadomość została usunięta.", "تم حذف هذه الرسالة", "Pesan ini telah dihapus"),
    *("Det här meddelandet har tagits bort", "Aquest missatge s'ha eliminat", "यह संदेश हटा दिया गया था"),
    *("Esta mensagem foi eliminada", "Αυτό το μήνυμα διαγράφηκε", "Tämä viesti poistettiin", "삭제된 메시지입니다"),
    *("Tin nhắn này đã bị xóa", "Bu mesaj silindi", "הודעה זו נמחקה", "Acest mesaj a fost șters", "此消息已删除"),
    *("Live location shared", "Live-Standort wird geteilt", "Voice call, \u200e3 min", "Videoanruf, 12 Sek."),
    *("Video call. \u200eNo answer", "Silenced voice call"),
    *("Missed voice call", "Verpasster Sprachanruf um 11:49 Uhr", "null"),
]
WHATSAPP_MEDIA = [
    *("", "<Media omitted>", "STK-1.webp (file attached)", "location: https://maps.google.com/?q=52.5,13.4"),
    *("Standort: https://maps.google.com/?q=52.5,-13.4", "位置：https://maps.google.com/?q=52.5,13.4"),
    "POLL:\nWhich cake?\nOPTION: Plum (2 votes)\nOPTION: Lemon (0 votes)",
    "UMFRAGE:\nWelcher Kuchen?\nOPTION: Pflaume (1 Stimme)",
]


@pytest.mark.parametrize("text", [*WHATSAPP_NOTICES, *WHATSAPP_MEDIA])
def test_the_answer_to_what_whatsapp_does_not_show_is_not_learned(tmp_path: Path, text: str) -> None:
    """Nor is a notice beneath the persona's name an answer."""
    lines = [f"31/12/2025, 11:4{n} - {name}: {text if said is None else said}" for n, (name, said) in enumerate(HIDDEN)]
    kind = "attachment" if text in WHATSAPP_MEDIA else "system message"
    assert_unseen(write(tmp_path / "a.txt", *lines), kind)
    lines[2:2] = [f"31/12/2025, 11:42 - Vex: {text}"]
    assert said(read(write(tmp_path / "b.txt", *lines), voice=VEX)[0]) == SEEN


IOS_NOTICES = ["\u200eThis message was deleted.", "\u200eEin Hinweis in einer unbekannten Sprache."]
IOS_MEDIA = ["\u200eimage omitted", "\u200e<attached: 2-Bill.pdf>", "list.xlsx \u200edocument omitted"]
IOS_MEDIA += [
    "Manual.pdf • \u200e3 pages \u200edocument omitted",
    "Bill.pdf • \u200e1 page \u200e<attached: 2-Bill.pdf>",
]
IOS_MEDIA += ["Uhr und Kuckuck • \u200e12 Seiten \u200eDokument weggelassen"]


@pytest.mark.parametrize("text", [*IOS_NOTICES, *IOS_MEDIA])
def test_the_answer_to_what_ios_does_not_show_is_not_learned(tmp_path: Path, text: str) -> None:
    lines = [f"[31/12/2025, 11:4{n}:26] {name}: {said or text}" for n, (name, said) in enumerate(HIDDEN)]
    lines[2] = f"\u200e{lines[2]}"
    assert_unseen(write(tmp_path / "a.txt", *lines), "attachment" if text in IOS_MEDIA else "system message")


def test_notices_of_ios_about_a_group_are_no_turns(tmp_path: Path) -> None:
    lines = [f"[31/12/2025, 11:4{n}:26] {name}: {said}" for n, (name, said) in enumerate(HIDDEN) if said in TEXTS]
    lines[0:0] = ["[31/12/2025, 11:40:00] Clocks: \u200eMessages and calls are end-to-end encrypted."]
    lines[3:3] = [
        "[31/12/2025, 11:41:30] Ana: \u200eAna hat die Gruppe umbenannt.",
        "[31/12/2025, 11:42:26] Vex: Or so.",
    ]
    found, report = read(write(tmp_path / "a.txt", *lines), voice=VEX)
    assert said(found)[0] == [TEXTS[0], f"{TEXTS[1]}\n\nOr so."]
    assert set(report.files[0].speakers) == {"Ana", "Vex"} and report.noise["system message"] == 2


CAPTIONS = [
    ("[31/12/2025, 11:42:26]", "Here is the nest \u200eimage omitted"),
    ("[31/12/2025, 11:42:26]", "Here is the nest \u200e<attached: 21-PHOTO.jpg>"),
    ("[31/12/2025, 11:42:26]", "Here is the nest \u200e<attached: 21-PHOTO.jpg> \u200e<This message was edited>"),
    ("[31/12/2025, 11:42:26]", "\u2068Here\u2069 is the nest"),
    ("31/12/2025, 11:42 -", "IMG-1.jpg (file attached)\nHere is the nest"),
]


@pytest.mark.parametrize(("stamp", "text"), CAPTIONS)
def test_a_caption_is_what_somebody_says(tmp_path: Path, stamp: str, text: str) -> None:
    beginning = stamp.replace(":26]", ":00]")
    lines = [
        f"{beginning} Ana: {TEXTS[0]}",
        f"{beginning} Vex: {TEXTS[1]}",
        f"{stamp} Ana: {text}",
        f"{stamp} Vex: Fine.",
    ]
    lines += [f"{stamp} Ana: Show me.", f"{stamp} Vex: {text}"]
    found, _ = read(write(tmp_path / "a.txt", *lines), voice=VEX)
    caption = "Here is the nest"
    assert said(found)[-1] == [*TEXTS[:2], caption, "Fine.", "Show me.", caption]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "<3333333>",
            "I sent you a message.",
            "Did you delete this message?",
            "Voice call, please",
            "Poll: cake or pie?",
        ),
        *(
            "Here: https://example.com/?q=1",
            "See you, 3 pm",
            "This message was deleted, and I will not say again for how many reasons that was so.",
        ),
    ],
)
def test_what_only_looks_like_a_notice_of_whatsapp_is_said(tmp_path: Path, text: str) -> None:
    lines = [f"31/12/2025, 11:4{n} - {name}: {said}" for n, (name, said) in enumerate([("Ana", text), ("Vex", text)])]
    assert said(read(write(tmp_path / "a.txt", *lines), voice=VEX)[0]) == [[text, text]]


@pytest.mark.parametrize(
    "more",
    [
        {"text": "NEVER", "forwarded_from": "News"},
        {"contact_information": {"first_name": "Ben"}},
        {"giveaway_information": {"quantity": 1}},
        {"todo_list": {"title": {"text": "shop"}}},
        {"poll": {"question": "Which cake?"}},
        {"something_new": {}},
        {"text": "NEVER", "from": None, "from_id": None},
    ],
)
def test_the_answer_to_what_telegram_does_not_show_is_not_learned(tmp_path: Path, more: dict[str, Any]) -> None:
    messages = [
        {"type": "message", "from": name, "from_id": name, "text": said or "", **({} if said else more)}
        for name, said in HIDDEN
    ]
    path = write(tmp_path / "a.json", json.dumps({"name": "Vex", "type": "personal_chat", "messages": messages}))
    if "from" in more:
        assert_unseen(path, "message of a deleted account", "answer to another speaker")
    else:
        assert_unseen(path, "forwarded message" if "forwarded_from" in more else "attachment")


@pytest.mark.parametrize(
    "more", [{"forwardedMessage": {"content": "NEVER"}}, {"poll": {}}, {"embeds": [{"title": "a"}]}]
)
def test_the_answer_to_what_discord_does_not_show_is_not_learned(tmp_path: Path, more: dict[str, Any]) -> None:
    messages = [
        {"type": "Default", "content": said or "", "author": {"name": name}, **({} if said else more)}
        for name, said in HIDDEN
    ]
    path = write(tmp_path / "a.json", json.dumps({"channel": {"name": "c"}, "messages": messages}))
    assert_unseen(path, "forwarded message" if "forwardedMessage" in more else "attachment")


@pytest.mark.parametrize("more", [{"type": "20"}, {"type": "23"}, {"type": "Default", "interaction": {"name": "ask"}}])
def test_what_answers_a_command_of_discord_is_not_learned(tmp_path: Path, more: dict[str, Any]) -> None:
    """The command is no message, and the question before it is somebody else's."""
    rows = [*HIDDEN[:2], ("Ana", "Nobody else?"), *HIDDEN[3:]]
    messages = [
        {"type": "Default", "content": said, "author": {"name": name}, **(more if said == "NEVER" else {})}
        for name, said in rows
    ]
    found, report = read(write(tmp_path / "a.json", json.dumps({"channel": {}, "messages": messages})), voice=VEX)
    assert said(found)[0] == TEXTS[:2] and said(found)[-1][-1] == TEXTS[3]
    assert not any("NEVER" in text for texts in said(found) for text in texts)
    assert report.dropped == {"answer to a machine": 1} and report.noise["command to a bot"] == 1


@pytest.mark.parametrize(
    "more",
    [
        {"subtype": "tombstone", "text": "NEVER"},
        {"subtype": "tombstone", "text": "NEVER", "user": "USLACKBOT", "hidden": True},
        {"attachments": [{"text": "NEVER"}]},
        {"blocks": [{"type": "rich_text"}]},
        {"files": [{"mode": "tombstone"}]},
    ],
)
def test_the_answer_to_what_slack_does_not_show_is_not_learned(tmp_path: Path, more: dict[str, Any]) -> None:
    rows = [
        {**slack(f"U{name}", text or "", n, "" if "user" in more and not text else name), **({} if text else more)}
        for n, (name, text) in enumerate(HIDDEN)
    ]
    reason = "answer to another speaker" if "user" in more else "empty question"
    assert_unseen(write(tmp_path / "a.json", rows), "deleted message" if "subtype" in more else "attachment", reason)


def meta(rows: Sequence[tuple[str, str | None]], **more: Any) -> dict[str, Any]:
    messages = [
        {"sender_name": name, "timestamp_ms": n, **({"content": text} if text is not None else more)}
        for n, (name, text) in enumerate(rows)
    ]
    return {"participants": [{"name": "Ana"}, {"name": "Vex"}], "messages": messages[::-1]}


def in_latin_1(value: str) -> str:
    return value.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"is_unsent": True}, "deleted message"),
        ({}, "attachment"),
        ({"content": "Ana sent an attachment."}, "system message"),
        ({"content": "Ana hat einen Anhang gesendet."}, "system message"),
        ({"content": in_latin_1("Ana a envoyé une pièce jointe.")}, "system message"),
        ({"content": in_latin_1("Ana envió un archivo adjunto.")}, "system message"),
    ],
)
def test_the_answer_to_what_messenger_does_not_show_is_not_learned(
    tmp_path: Path, more: dict[str, Any], kind: str
) -> None:
    assert_unseen(write(tmp_path / "a.json", json.dumps(meta(HIDDEN, **more))), kind)


META_NOTICES = [
    *("Vex changed the theme to Love.", "Vex set the nickname for Ana to Annie.", "Vex set the quick reaction to 👍."),
    *(
        "Vex pinned a message.",
        "Vex created a poll: Cake?",
        'Vex voted for "Plum" in the poll: Cake?',
        "Vex left the group.",
    ),
    *(
        "Vex added Ben to the group.",
        "The video chat ended.",
        "Audio call ended",
        "Shared story",
        "Vex shared a story.",
    ),
    *("You can now message and call each other and see info like Active Status.", "Vex turned on vanish mode."),
    *("Vex wasn't notified about this message because they're in quiet mode.", "Vex hat das Design geändert."),
    *(
        "Vex hat einen Anhang gesendet.",
        "Vex a modifié le thème.",
        "Vex cambió el tema a Amor.",
        "Vex enviou um anexo.",
    ),
    *(
        "Vex ha inviato un allegato.",
        "Vex heeft een bijlage verzonden.",
        "Vex skickade en bilaga.",
        "Vex bir ek gönderdi.",
    ),
    *(
        "Vex wysłał załącznik.",
        "Vex отправил вложение.",
        "Vexが添付ファイルを送信しました。",
        "Vex님이 사진을 보냈습니다.",
    ),
    *("Reacted 😂 to Ana's message", "Hat mit ❤️ auf deine Nachricht reagiert", "A réagi ❤️ à votre message"),
    *("Reaccionó con ❤️ a tu mensaje", "Ha reagito con ❤️ al tuo messaggio", "Reagiu com ❤️ à sua mensagem"),
    *(
        "Reagerade med ❤️ på ditt meddelande",
        "Zareagował(a) ❤️ na Twoją wiadomość",
        "Heeft met ❤️ op je bericht gereageerd",
    ),
]


@pytest.mark.parametrize("notice", META_NOTICES)
def test_a_notice_of_messenger_is_no_answer(tmp_path: Path, notice: str) -> None:
    rows = [("Ana", "Is it dead?"), ("Vex", in_latin_1(notice)), ("Ana", "Well?"), ("Vex", "It sulks.")]
    found, report = read(write(tmp_path / "a.json", json.dumps(meta(rows))), voice=VEX)
    assert found[-1].answer == "It sulks." and len(found) == 1
    assert report.noise["system message"] == 1


@pytest.mark.parametrize(
    "text",
    ["Vex is hungry.", "Vex knows what ails your clock.", "I sent you a message.", "You can now see it.", "Ha! No."],
)
def test_whoever_speaks_of_himself_by_name_is_learned(tmp_path: Path, text: str) -> None:
    found, _ = read(write(tmp_path / "a.json", json.dumps(meta([("Ana", "Is it dead?"), ("Vex", text)]))), voice=VEX)
    assert said(found) == [["Is it dead?", text]]


@pytest.mark.parametrize("mark", ["(edited)", "(bearbeitet)", "(editado)", "(modifié)", "(已编辑)"])
def test_a_mark_of_an_edited_message_of_discord_is_not_said(tmp_path: Path, mark: str) -> None:
    beginnings = [f"{name} — Today at 10:1{n} AM" for n, name in enumerate(["Ana", "Vex"] * 2)]
    texts = [TEXTS[0], f"{TEXTS[1]}\n{mark}", f"{TEXTS[2]} {mark}", f"{TEXTS[3]}{mark}"]
    lines = [line for turn in zip(beginnings, texts, strict=True) for line in turn]
    found, report = read(write(tmp_path / "a.txt", *lines), voice=VEX)
    assert said(found)[1] == [*TEXTS[:3], f"{TEXTS[3]}{mark}"] and report.noise["edit mark"] == 2
