"""What people copy from a terminal in which they talked with a local model: Ollama's and llama.cpp's."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from moltlm.data.conversations.format import TextFormat
from moltlm.data.conversations.source import Source
from moltlm.data.conversations.sources import LIMIT, lines
from moltlm.data.conversations.speakers import fence_after
from moltlm.data.conversations.tree import BRANCH
from moltlm.data.conversations.turns import Conversation, FileReport, Turn, turn_of
from moltlm.data.errors import BadInput

PROMPT = ">>>"
PLACEHOLDER = "Send a message (/? for help)"
OLLAMA_START = re.compile(
    r"(?:[^\n]{0,100}[$%#>❯] ?)?ollama run \S|(?:pulling|verifying|removing) |writing manifest|success\s*$"
)
"""How a line before Ollama's first prompt looks."""
OLLAMA_THINKING = re.compile(
    r"\A\s*Thinking\.\.\.[ ]*\n.*?(?:^\.\.\.done thinking\.[ ]*$|\Z)", re.DOTALL | re.MULTILINE
)
VERBOSE = re.compile(r"^total duration: +\S+\n(?:(?:load|prompt eval|eval) [a-z]+: +[^\n]*(?:\n|\Z)){3,}", re.MULTILINE)
"""What `--verbose` writes beneath an answer."""

LLAMA_MARKS = re.compile(
    r"^=?== Running in interactive mode\. ===?$|^available commands:\n  /exit |^\[ Prompt: [\d.]+ t/s \|", re.MULTILINE
)
LLAMA_END = re.compile(r"\[ Prompt: [\d.]+ t/s \| Generation: [\d.]+ t/s \]\s*$")
"""What the newer llama-cli writes beneath an answer; only then comes the next prompt."""
LLAMA_LOG = re.compile(r"(?:llama|common|ggml)_\w+: |Exiting\.\.\.$|Interrupted by user$")
LLAMA_THINKING = re.compile(r"\A\s*\[Start thinking\].*?(?:^\[End thinking\][ ]*$|\Z)", re.DOTALL | re.MULTILINE)
END_OF_TEXT = re.compile(r" ?\[end of text\]\s*\Z")

COMMANDS = (
    *("/set", "/show", "/load", "/save", "/clear", "/bye", "/exit", "/?", "/help"),
    *("/regen", "/read", "/glob", "/image", "/audio", "/video"),
)
NEW_CHAT = ("/clear", "/load")
CODE = (
    ast.Call,
    ast.Attribute,
    ast.Subscript,
    ast.Assign,
    ast.AugAssign,
    ast.Import,
    ast.ImportFrom,
    ast.List,
    ast.Dict,
)

ANSWER, QUESTION, COMMAND = "assistant", "user", "command of the user"


@dataclass
class Console:
    """What a session has so far.

    Attributes:
        kind: what the pending lines are: ANSWER, QUESTION, or else noise of this name.
        number: of the conversation. A command such as `/clear` begins another one.
        answer: the last one with its role, and whether something was removed from it, which `/regen` replaces.
        fence: the code fence that is open in an answer, and the line in which a prompt follows it.
    """

    source: Source
    report: FileReport
    thinking: re.Pattern[str]
    kind: str = "text before the first turn"
    pending: list[str] = field(default_factory=list)
    size: int = 0
    number: int = 0
    answer: tuple[str, str, bool] | None = None
    fence: str = ""
    swallowed: int = 0

    def add(self, text: str, line: int) -> None:
        """Add a line to what is pending. Raises BadInput for a turn over LIMIT."""
        self.pending.append(text)
        self.size += len(text)
        self.fence = fence_after(self.fence, text) if self.kind == ANSWER else ""
        if self.size > LIMIT:
            raise self.source.bad(f", line {line}: one turn is larger than {LIMIT >> 20} MiB.")

    def begin(self, kind: str, text: str, line: int) -> Iterator[tuple[int, Turn]]:
        """The turns that end where lines of another kind begin."""
        yield from self._ended()
        self.kind, self.pending, self.size, self.swallowed = kind, [], 0, 0
        self.add(text, line)

    def question(self, text: str, line: int) -> Iterator[tuple[int, Turn]]:
        """The turns that end where the user asks, or gives a command."""
        command = text.split(maxsplit=1)[0] if text.startswith("/") else ""
        yield from self.begin(COMMAND if command in COMMANDS else QUESTION, text, line)
        if command in NEW_CHAT:
            yield from self._released()
            self.number += 1
        elif command == "/regen":
            yield from self.begin(ANSWER, "", line)

    def reply(self, text: str, line: int) -> Iterator[tuple[int, Turn]]:
        """The turns that end where the text after a prompt begins; after an empty prompt it is no answer."""
        yield from self.begin(ANSWER if any(self.pending) else "text of the terminal", text, line)

    def end(self, line: int) -> Iterator[tuple[int, Turn]]:
        """The last turns. Raises BadInput for a code fence that is never closed although prompts follow."""
        if self.fence and self.swallowed:
            fix = f"Close it with {self.fence} where the code ends: sed -n {self.swallowed}p '{self.source.name}'"
            raise self.source.bad(f", line {self.swallowed}: a prompt stands in code that is never closed.", fix)
        yield from self.begin("", "", line)
        yield from self._released()

    def _released(self) -> Iterator[tuple[int, Turn]]:
        if self.answer:
            yield from self._turns(*self.answer)
        self.answer = None

    def _turns(self, role: str, text: str, noisy: bool = False) -> Iterator[tuple[int, Turn]]:
        for turn in turn_of(role, text, self.report, lambda what: BadInput(what, "")):
            yield self.number, turn._replace(noisy=turn.noisy or noisy)

    def _ended(self) -> Iterator[tuple[int, Turn]]:
        text = "\n".join(self.pending).strip()
        if self.kind == QUESTION and text:
            yield from self._released()
            yield from self._turns(QUESTION, text.replace("\\\n", "\n"))
        elif self.kind == ANSWER:
            self._hold(text)
        elif self.kind != QUESTION:
            self.report.noise[self.kind] += bool(text)

    def _hold(self, text: str) -> None:
        if self.answer:
            self.report.drop(BRANCH)
        text, thoughts = self.thinking.subn("", text)
        text, statistics = VERBOSE.subn("", text)
        self.report.noise["thinking"] += thoughts
        self.report.noise["statistics"] += statistics
        self.answer = ANSWER, END_OF_TEXT.sub("", text).strip(), bool(thoughts or statistics)


def is_ollama(text: str) -> bool:
    """Whether a text is a session of `ollama run`. Python's interpreter has the same prompt: it is Ollama's if more
    sentences than lines of code follow it, or if the session shows that Ollama runs."""
    first = [line for line in text[: 1 << 16].splitlines() if line.strip()]
    start = next((place for place, line in enumerate(first) if line.startswith(PROMPT)), None)
    if start is None or any(line.startswith(">> ") for line in first):
        return False
    if start:
        return all(OLLAMA_START.match(line) for line in first[:start])
    prompts = [line[len(PROMPT) :].strip() for line in first if line.startswith(PROMPT)]
    is_ollamas = PLACEHOLDER in prompts or any(prompt.startswith(("/bye", "/set ")) for prompt in prompts)
    kinds = [kind_of(prompt) for prompt in prompts]
    return is_ollamas or kinds.count("sentence") > kinds.count("code")


def kind_of(prompt: str) -> str:
    """Whether what follows a prompt is a sentence or code; "" for what may be either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(prompt[:500])
    except SyntaxError:
        return "" if prompt.endswith(":") or len(prompt.split()) < 2 else "sentence"
    except (ValueError, RecursionError, MemoryError):
        return ""
    return "code" if any(isinstance(node, CODE) for node in ast.walk(tree)) else ""


def _ollama(source: Source, report: FileReport) -> Iterator[tuple[int, Turn]]:
    console, is_open, number, blank = Console(source, report, OLLAMA_THINKING), False, 0, True
    for number, line in lines(source):
        text = line.rstrip()
        asks = text == PROMPT or text.startswith(PROMPT + " ")
        if is_open:  # a question of several lines, in three quotation marks
            is_open = not text.endswith('"""')
            console.add(text.removeprefix("... ").removesuffix('"""'), number)
        elif asks and (blank or console.kind != ANSWER) and not console.fence:
            prompt = text[len(PROMPT) :].strip()
            is_open = prompt.startswith('"""') and not prompt.endswith('"""', 3)
            prompt = prompt.removeprefix('"""').removesuffix('"""')
            yield from console.question("" if prompt == PLACEHOLDER else prompt, number)
        elif console.kind == QUESTION:
            yield from console.reply(text, number)
        else:
            console.swallowed = console.swallowed or number * (asks and blank)
            console.add(text, number)
        blank = not text or text.startswith("eval rate:")
    yield from console.end(number)


def _llama(source: Source, report: FileReport) -> Iterator[tuple[int, Turn]]:
    console, newer, number, blank = Console(source, report, LLAMA_THINKING), False, 0, True
    for number, line in lines(source):
        text = line.rstrip()
        newer = newer or bool(LLAMA_END.match(text)) or text.startswith("  /exit or Ctrl+C")
        goes_on = console.kind == QUESTION and (console.pending[-1].endswith("\\") or (newer and bool(text)))
        may_ask = console.kind != ANSWER or (blank and not newer and not console.fence)
        if may_ask and not goes_on and (text == ">" or text.startswith("> ")):
            yield from console.question(text[2:], number)
        elif LLAMA_END.match(text) or LLAMA_LOG.match(text):
            yield from console.begin("statistics", text, number)
        elif console.kind == QUESTION and not goes_on:
            yield from console.reply(text, number)
        else:
            console.add(text, number)
        blank = not text
    yield from console.end(number)


def _conversations(turns: Iterable[tuple[int, Turn]], source: Source, report: FileReport) -> Iterator[Conversation]:
    for _, each in groupby(turns, key=itemgetter(0)):
        report.conversations += 1
        yield Conversation("the session", (turn for _, turn in each), source.stem)


OLLAMA = TextFormat(
    "ollama run",
    "what `ollama run` shows",
    is_ollama,
    lambda source, report: _conversations(_ollama(source, report), source, report),
)
LLAMA_CPP = TextFormat(
    "llama.cpp",
    "what llama-cli shows",
    lambda text: bool(LLAMA_MARKS.search(text)) and "\n>" in text,
    lambda source, report: _conversations(_llama(source, report), source, report),
)
