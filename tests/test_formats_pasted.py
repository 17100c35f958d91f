"""What people copy and paste: terminals, pages of chats, logs; and texts of the same form that are no conversation."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moltlm.data.conversations.voices import UnknownPersona, Voice
from moltlm.data.errors import BadInput
from tests.conversation_files import read, said

VEX = Voice(("Vex",))
ASKED, ANSWERED, MORE, LAST = "My clock stopped.", "It sulks.", "And if not?", "Bring\ncake."
BOTH = [[ASKED, ANSWERED], [ASKED, ANSWERED, MORE, LAST]]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "chat.txt").write_text(text, encoding="utf-8")
        return tmp_path / "chat.txt"

    return write


OLLAMA = [
    f">>> {ASKED}\n{ANSWERED}\n\n>>> {MORE}\n{LAST}\n\n>>> Send a message (/? for help)\nana@box:~$ NEVER\n",
    f"(base) ~ $ ollama run qwen3\npulling manifest\nsuccess\n>>> {ASKED}\nThinking...\nNEVER\n...done thinking.\n\n"
    f'{ANSWERED}\n\n>>> /set verbose\nNEVER\n>>> """And\n... if not?"""\n{LAST}\n\n'
    "total duration:       3.2s\nload duration:        1.1ms\nprompt eval count:    12 token(s)\n"
    "prompt eval duration: 120ms\nprompt eval rate:     100 tokens/s\neval count:           50 token(s)\n"
    "eval duration:        2.9s\neval rate:            17 tokens/s\n>>> /bye\n",
]


@pytest.mark.parametrize("text", OLLAMA)
def test_a_session_of_ollama(written: Callable[[str], Path], text: str) -> None:
    exchanges, report = read(written(text))
    assert [" ".join(" ".join(row).split()) for row in said(exchanges)] == [
        " ".join(" ".join(row).split()) for row in BOTH
    ]
    assert report.formats == {"ollama run": 2}


def test_ollamas_clear_begins_another_conversation(written: Callable[[str], Path]) -> None:
    text = f">>> {ASKED}\n{ANSWERED}\n\n>>> /clear\nCleared session context\n>>> {MORE}\n{LAST}\n"
    exchanges, report = read(written(text))
    assert said(exchanges) == [[ASKED, ANSWERED], [MORE, LAST]]
    assert report.conversations == 2


def test_a_prompt_of_python_in_an_answer_begins_no_turn(written: Callable[[str], Path]) -> None:
    code = "Try it:\n\n```python\n>>> 1 + 1\n\n>>> print('tea')\n```"
    exchanges, _ = read(written(f">>> {ASKED}\n{code}\n\n>>> {MORE}\n{LAST}\n"))
    assert said(exchanges)[0] == [ASKED, code]
    with pytest.raises(BadInput, match="code that is never closed"):
        read(written(f">>> {ASKED}\n```python\n1\n\n>>> {MORE}\n{LAST}\n"))


OLD_LLAMA = (
    "main: interactive mode on.\n\n== Running in interactive mode. ==\n - Press Ctrl+C to interject at any time.\n\n\n"
    f"> {ASKED}\n{ANSWERED}\n\n> And \\\nif not?\n{LAST}\n\n>\nllama_perf_context_print: NEVER\n"
)
LLAMA_BANNER = (
    "Loading model... \n\n▄▄ ▄▄\n\nbuild      : b8083\n\navailable commands:\n  /exit or Ctrl+C     stop or exit\n"
    "  /regen              regenerate the last response\n\n\n"
)
SPEED = "[ Prompt: 100.0 t/s | Generation: 50.0 t/s ]\n\n"


def test_a_session_of_llama_cpp(written: Callable[[str], Path]) -> None:
    exchanges, report = read(written(OLD_LLAMA.replace(ANSWERED, f"<think>NEVER</think>{ANSWERED}")))
    assert said(exchanges) == [BOTH[0], [*BOTH[0], "And \nif not?", LAST]]
    assert report.formats == {"llama.cpp": 2}
    quoting = "He said:\n\n> Tea first.\n\nSo be it."
    newer = (
        f"{LLAMA_BANNER}> {ASKED}\n\n[Start thinking]\nNEVER\n[End thinking]\n\nNEVER\n\n{SPEED}> /regen\n\n{ANSWERED}\n\n"
        f"{SPEED}> {MORE}\n\n{quoting}\n\n{SPEED}> /clear\n\nChat history cleared.\n\n> {ASKED}\n\n{LAST}\n\n{SPEED}> \n\n"
        "Exiting...\n"
    )
    exchanges, report = read(written(newer))
    assert said(exchanges) == [BOTH[0], [*BOTH[0], MORE, quoting], [ASKED, LAST]]
    assert report.dropped == {"alternative branch": 1} and report.conversations == 2


PAGES = {
    "ChatGPT": (
        "Skip to content\nYou said:\n{0}\n\nChatGPT said:\n{1}\n\nYou said:\n{2}\n\nChatGPT said:\n{3}\n\n"
        "ChatGPT can make mistakes. Check important info.\n"
    ),
    "ChatGPT in German": (
        "Du hast gesagt:\n{0}\nChatGPT hat gesagt:\n{1}\nDu hast gesagt:\n{2}\nChatGPT hat gesagt:\n{3}\n\n"
        "ChatGPT kann Fehler machen. Überprüfe wichtige Informationen.\n"
    ),
    "ChatGPT earlier": "You\n{0}\nChatGPT\n{1}\nYou\n{2}\nChatGPT\n{3}\n",
    "Gemini": (
        "Conversation with Gemini\nYou said\n\n{0}\nGemini said\n\n{1}\n\nYou said\n\n{2}\nGemini said\n\n{3}\n\n"
        "Gemini is AI and can make mistakes, so double-check it\n"
    ),
    "Claude": (
        "You said: {0}\n{0}\n4:50 AM\nClaude responded: It…\n{1}\n\nYou said: And\n{2}\n4:52 AM\n"
        "Claude responded: Bring\n{3}\n\nClaude is AI and can make mistakes. Please double-check responses.\n"
    ),
    "Copilot": "You said\n{0}\nCopilot said\n{1}\nYou said\n{2}\nCopilot said\n{3}\n",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_was_copied(written: Callable[[str], Path], name: str) -> None:
    text = PAGES[name].format(ASKED, ANSWERED, MORE, LAST)
    assert said(read(written(text))[0]) == BOTH


LOGS = {
    "prompt": "{}> {}\n",
    "dash": "{} - {}\n",
    "long dash": "{} — {}\n",
    "mIRC": "[12:03] <{}> {}\n",
    "HexChat": "Mar 12 12:03:11 <{}> {}\n",
    "irssi": "12:03 <@{}> {}\n",
    "WeeChat": "2026-03-12 12:03:11\t{}\t{}\n",
    "Discord": "{} — Today at 10:11 AM\n{}\n",
    "Discord by date": "{} — 12/03/2026, 10:11\n{}\n",
}


def log(form: str, *rows: tuple[str, str]) -> str:
    return "".join(form.format(name, text) for name, text in rows)


@pytest.mark.parametrize("third", ["Bo", "_bo_", "[zed]", "The Real Slim"])
@pytest.mark.parametrize("name", LOGS)
def test_a_log_with_a_third_speaker(written: Callable[[str], Path], name: str, third: str) -> None:
    if name in ("prompt", "dash", "long dash") and third != "Bo":
        pytest.skip("a name there has letters and one or two words")
    rows = [("Ana", ASKED), ("Vex", ANSWERED), (third, "NEVER"), ("Vex", "NEVER"), ("Ana", MORE), ("Vex", "Cake.")]
    exchanges, report = read(written(log(LOGS[name], *rows)), voice=VEX)
    assert said(exchanges) == [BOTH[0], [MORE, "Cake."]]
    assert report.noise["turn of another speaker"] == 1 and report.dropped == {"answer to another speaker": 1}


@pytest.mark.parametrize("name", LOGS)
def test_nobody_guesses_who_the_persona_is(written: Callable[[str], Path], name: str) -> None:
    text = log(LOGS[name], ("Ana", ASKED), ("Vex", ANSWERED), ("Ana", MORE), ("Vex", "Cake."))
    with pytest.raises(UnknownPersona, match="Ana or Vex"):
        read(written(text))


def test_three_lines_are_a_chat_too(written: Callable[[str], Path]) -> None:
    path = written(f"Ana: {ASKED}\nVex: {ANSWERED}\nAna: {MORE}\n")
    assert said(read(path, voice=VEX)[0]) == [BOTH[0]]
    with pytest.raises(UnknownPersona, match="Ana or Vex"):
        read(path)


def test_roles_before_an_angle_may_have_answers_of_several_lines(written: Callable[[str], Path]) -> None:
    text = f"User> {ASKED}\nAssistant> {ANSWERED}\nUser> {MORE}\nAssistant> {LAST}\n"
    assert said(read(written(text))[0]) == BOTH


@pytest.mark.parametrize("between", ["=====\n", "Conversation 2\n", "\n=== Chat 2 ===\n\n"])
def test_what_stands_between_conversations_is_in_none(written: Callable[[str], Path], between: str) -> None:
    one = "User: {}\nAssistant: {}\n"
    exchanges, report = read(written(one.format(ASKED, ANSWERED) + between + one.format(MORE, "Cake.")))
    assert said(exchanges) == [[ASKED, ANSWERED], [MORE, "Cake."]] and report.conversations == 2


def test_an_answer_before_what_may_be_a_speaker_or_a_part_of_it_is_not_learned(written: Callable[[str], Path]) -> None:
    """Neither half of it, nor with somebody else's words."""
    text = f"User: {ASKED}\nAssistant: NEVER.\nWater: hot.\nLeaves: black.\nUser: {MORE}\nAssistant: Cake.\n"
    exchanges, report = read(written(text))
    assert said(exchanges) == [[MORE, "Cake."]]
    assert report.dropped == {"may go on in a line that looks like a speaker's": 1}
    regular = f"User: {ASKED}\nAssistant: {ANSWERED}\nBo: NEVER\n"
    exchanges, report = read(written(regular + f"User: {MORE}\nAssistant: Cake.\nBo: NEVER\n"))
    assert said(exchanges) == [BOTH[0], [*BOTH[0], MORE, "Cake."]] and not report.dropped


def test_macros_are_speakers(written: Callable[[str], Path]) -> None:
    rows = [("{{user}}", ASKED), ("{{char}}", ANSWERED), ("{{user}}", MORE), ("{{char}}", LAST)]
    assert said(read(written(log("{}: {}\n", *rows)), voice=VEX)[0]) == BOTH


def test_what_belongs_to_the_persona_is_not_the_persona(written: Callable[[str], Path]) -> None:
    rows = [
        ("Ana", ASKED),
        ("Vex's clock", "NEVER"),
        ("Ana", MORE),
        ("Vex and Bo", "NEVER"),
        ("Ana", "So?"),
        ("Vex", LAST),
    ]
    exchanges, _ = read(written(log("{}: {}\n", *rows)), voice=VEX)
    assert [exchange.answer for exchange in exchanges] == [LAST]


NO_CHATS = {
    "a list": "Apples - 3\nPears - 4\nPlums - 2\n",
    "a glossary": "Ana - the witch.\nBo - the cat.\nTollak - the smith.\n",
    "quotations": "> My clock stopped.\n> So it did.\n\nIt sulks.\n\n> And if not?\n\nBring cake.\n",
    "a quotation within": "An essay.\n\n> My clock stopped.\n\nSome prose, where a > b.\n\n> And if not?\n\nThe end.\n",
    "a session of Python": ">>> import os\n>>> os.getcwd()\n'/tmp'\n>>> for i in range(2):\n...     print(i)\n0\n1\n",
    "a letter": ">>> are you there?\n>> Yes.\n> Where?\nHere.\n",
    "prompts of a shell": "mysql> select 1;\n1\nmysql> select 2;\n2\n",
    "comparisons": "Ana > Bo in height\nTollak > Ana in weight\n",
    "what people said": "It was late.\nAna said\nnothing at all.\nVex said\nnothing either.\n",
}


@pytest.mark.parametrize("name", NO_CHATS)
def test_prose_and_lists_are_no_conversations(written: Callable[[str], Path], name: str) -> None:
    with pytest.raises(BadInput, match="no conversation of a known format"):
        read(written(NO_CHATS[name]))


DOUBTFUL = {
    "questions or quotations": f"> {ASKED}\n{ANSWERED}\n\n> {MORE}\n{LAST}\n",
    "questions or Python": f">>> hello\n{ANSWERED}\n\n>>> tea\n{LAST}\n",
    "turns or a list": f"Ana - {ASKED}\nAssistant - {ANSWERED}\n",
    "turns or comparisons": f"Ana > {ASKED}\nAssistant > {ANSWERED}\n",
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_may_be_a_chat_is_refused_with_a_command_that_imports_it(
    written: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    path = written(DOUBTFUL[name])
    with pytest.raises(BadInput, match="may be") as refused:
        read(path)
    command = refused.value.fix.partition(": ")[2]
    molt = f"{shlex.quote(sys.executable)} -m moltlm.pipeline.cli data import"
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("molt data import", molt)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    learned = read(tmp_path / "conversations" / "imported.jsonl")[0]
    assert len(learned) == DOUBTFUL[name].count(ASKED) + DOUBTFUL[name].count(MORE) or name == "questions or Python"
    assert learned[0].answer == ANSWERED
