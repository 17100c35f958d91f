"""Examples of tasks, from two small generators (reminder to JSON, English to shell command) or from files.

The generators' training and test examples share wordings, days and times, but no thing to do, file, folder, word or
number, so a test example is never a copy of a training example.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moltlm.data import prose
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import read_jsonl
from moltlm.data.types import TaskExample

PREFIX_WORDS = 8
"""Words of a passage that are its prompt, so that it can be distinguished from others."""
REMINDERS = (
    "remind me to {what} on {day} at {time}",
    "don't let me forget to {what} {day} at {time}",
    "{day} {time}, {what}",
    "i need to {what} on {day}, say {time}",
    "at {time} on {day} please remind me: {what}",
    "set a reminder for {day} at {time}: {what}",
    "can you remind me at {time} {day} to {what}?",
    "{what} - {day}, {time}",
    "note for {day}: {what} at {time}",
    "wake me on {day} at {time}, i have to {what}",
    "{day} at {time} i should {what}",
    "please make sure that i {what} on {day} at {time}",
    "hey, {what}, {day}, {time}. remind me",
    "reminder: {what}. when: {day} {time}",
    "it's important that i {what} at {time} on {day}",
)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "today", "tomorrow")
WHATS = {
    "train": (
        "water the basil", "call the bank", "pay the rent", "feed the cat", "fix the bike", "clean the oven",
        "return the library book", "order the tickets", "book the dentist", "sign the contract",
        "print the photos", "charge the camera", "visit my sister", "meet the plumber", "check the gas meter",
        "buy new batteries", "send the invoice", "defrost the soup", "walk the dog", "take out the bins",
        "bake the bread", "iron the shirts", "top up the phone", "measure the window", "oil the hinges",
        "thank the neighbours", "back up the laptop", "pick up the cake", "practise the piano", "cut the hedge",
        "post the letter", "change the sheets",
    ),
    "test": (
        "repot the orchid", "email my uncle", "renew the passport", "brush the rabbit", "collect the parcel",
        "wash the curtains", "cancel the gym", "pack the suitcase", "phone the landlord", "tune the violin",
        "sweep the chimney", "label the jars", "mend the fence", "empty the freezer", "paint the shelf",
        "wrap the gift",
    ),
}  # fmt: skip
FILES = {
    "train": ("report.csv", "notes.txt", "server.log", "main.py", "photo.png", "data.json", "todo.md", "access.log"),
    "test": ("budget.csv", "diary.txt", "error.log", "setup.py", "map.png", "users.json", "readme.md", "trace.log"),
}
FOLDERS = {
    "train": ("docs", "src", "backup", "music", "images", "projects", "build", "mail"),
    "test": ("notes", "lib", "archive", "videos", "drafts", "photos", "dist", "scans"),
}
WORDS = {
    "train": ("error", "warning", "login", "total", "user", "cache", "token", "price"),
    "test": ("timeout", "failed", "session", "amount", "client", "memory", "key", "street"),
}
NUMBERS = {"train": (3, 5, 10, 12, 25, 40, 100), "test": (4, 7, 15, 30, 60)}
SHELL = (
    (("count the lines in {file}", "how many lines does {file} have"), "wc -l {file}"),
    (("count the words in {file}", "how many words are in {file}"), "wc -w {file}"),
    (("show the first {n} lines of {file}", "print the top {n} lines of {file}"), "head -n {n} {file}"),
    (("show the last {n} lines of {file}", "print the final {n} lines of {file}"), "tail -n {n} {file}"),
    (("find {word} in {file}", "show lines of {file} that contain {word}"), "grep {word} {file}"),
    (("search for {word} in {file} ignoring case", "find {word} in {file}, any case"), "grep -i {word} {file}"),
    (("count lines with {word} in {file}", "how many lines of {file} mention {word}"), "grep -c {word} {file}"),
    (("search for {word} in all of {folder}", "look for {word} everywhere in {folder}"), "grep -r {word} {folder}"),
    (("copy {file} to {folder}", "put a copy of {file} in {folder}"), "cp {file} {folder}"),
    (("move {file} to {folder}", "put {file} into {folder}"), "mv {file} {folder}"),
    (("make a folder called {folder}", "create the directory {folder}"), "mkdir {folder}"),
    (("delete {file}", "remove the file {file}"), "rm {file}"),
    (("delete the folder {folder} and all in it", "remove {folder} with everything inside"), "rm -r {folder}"),
    (("list everything in {folder}", "show what is in {folder}"), "ls {folder}"),
    (("list {folder} with sizes", "show the files of {folder} in detail"), "ls -l {folder}"),
    (("list {folder} with hidden files", "show hidden files too in {folder}"), "ls -a {folder}"),
    (("how big is {folder}", "show the disk space that {folder} takes"), "du -sh {folder}"),
    (("sort {file}", "print {file} in alphabetical order"), "sort {file}"),
    (("sort {file} by number", "print {file} in numeric order"), "sort -n {file}"),
    (("find files over {n} MB in {folder}", "what in {folder} is larger than {n} MB"), "find {folder} -size +{n}M"),
    (("find files newer than {n} days in {folder}", "what is new in {folder}, {n} days"), "find {folder} -mtime -{n}"),
    (("compress {folder}", "make a tar archive of {folder}"), "tar -czf {folder}.tar.gz {folder}"),
    (("make {file} executable", "let me run {file}"), "chmod +x {file}"),
    (("show {file} as it grows", "follow {file}"), "tail -f {file}"),
)  # fmt: skip


def examples(task: TaskConfig, split: str, seed: int) -> list[TaskExample]:
    """The examples of a task, with distinct prompts: `task.train` or `task.test` of them. Deterministic for a seed.

    Args:
        split: `train` or `test`.
        seed: used if the task has no seed of its own.

    Raises:
        BadInput: for a file that is missing or lacks a column, or if there are too few examples.
    """
    n, seed = task.train if split == "train" else task.test, seed if task.seed is None else task.seed
    if not task.path:
        return generate(task.kind, split, n, seed)
    read = _passages if task.kind == "text" else _from_file
    available = read(task, split)
    if split == "test":
        train_prompts = {item.prompt[0]["content"] for item in read(task, "train")}
        available = [item for item in available if item.prompt[0]["content"] not in train_prompts]
    if len(available) < n:
        raise BadInput(f"{task.path} has {len(available)} different {split} examples, not {n}.", "Lower the number.")
    return random.Random(f"{split}-{seed}").sample(available, n)


def test_prompts(task: TaskConfig, seed: int) -> list[str]:
    """The prompts that no training example may be similar to: all test prompts of a file, whatever a seed samples."""
    if task.kind == "text":
        return [item.prompt[0]["content"] + item.answer for item in _passages(task, "test")]
    examples = _from_file(task, "test") if task.path else generate(task.kind, "test", task.test, seed)
    return [item.prompt[0]["content"] for item in examples]


def _from_file(task: TaskConfig, split: str) -> list[TaskExample]:
    path, by_prompt = Path(task.path) / f"{split}.jsonl", {}
    for number, row in enumerate(read_jsonl(path, f"{split} examples"), 1):
        prompt, answer = (_filled(text, row, path, number) for text in (task.prompt, task.answer))
        if prompt and answer:
            by_prompt.setdefault(prompt, TaskExample([{"role": "user", "content": prompt}], answer))
    return list(by_prompt.values())


def _passages(task: TaskConfig, split: str) -> list[TaskExample]:
    """Texts in passages of `passage_words` words. The first PREFIX_WORDS words of a passage are its prompt. A short
    rest at the end of a text is dropped."""
    plain = Path(task.path) / f"{split}.txt"
    if plain.is_file():
        texts = prose.paragraphs(plain)
    else:
        path = plain.with_suffix(".jsonl")
        rows = read_jsonl(path, f"{split} texts")
        texts = [_filled(task.answer, row, path, number) for number, row in enumerate(rows, 1)]
    by_prefix: dict[str, TaskExample] = {}
    for piece in prose.passages(texts, task.passage_words, PREFIX_WORDS):
        by_prefix.setdefault(piece.prompt[0]["content"], TaskExample(piece.prompt, piece.answer))
    return list(by_prefix.values())


def _filled(template: str, row: dict[str, Any], path: Path, number: int) -> str:
    def column(match: re.Match[str]) -> str:
        value = row.get(match.group(1))
        if value is None:
            raise BadInput(
                f"{path}, line {number}: no column {match.group(1)}.",
                f"Its columns are {', '.join(row)}: set the task's prompt and answer, such as 'Ask: {{{min(row)}}}'",
            )
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return re.sub(r"\{(\w+)\}", column, template).strip()


def generate(kind: str, split: str, n: int, seed: int) -> list[TaskExample]:
    """Generate `n` examples with distinct prompts. Deterministic for the same arguments.

    Args:
        kind: one of KINDS.
        split: `train` or `test`.

    Raises:
        BadInput: for an unknown kind, or if there are not `n` distinct examples.
    """
    if kind not in KINDS:
        raise BadInput(f"No task kind {kind}.", f"Use one of: {', '.join(KINDS)}.")
    rng = random.Random(f"{kind}-{split}-{seed}")
    by_prompt: dict[str, TaskExample] = {}
    for attempt in range(50 * n):
        prompt, answer = KINDS[kind](split, attempt, rng)
        by_prompt.setdefault(prompt, TaskExample([{"role": "user", "content": prompt}], answer))
        if len(by_prompt) == n:
            return list(by_prompt.values())
    raise BadInput(f"{kind} has only about {len(by_prompt)} different {split} examples, not {n}.", "Lower the number.")


def _reminder(split: str, attempt: int, rng: random.Random) -> tuple[str, str]:
    what = rng.choice(WHATS[split])
    day = rng.choice(DAYS)
    hour, minute = rng.randrange(6, 23), rng.choice((0, 0, 15, 30, 45))
    wording = REMINDERS[attempt % len(REMINDERS)]
    request = wording.format(what=what, day=day, time=_time(hour, minute, rng))
    answer = json.dumps({"what": what, "day": day, "time": f"{hour:02d}:{minute:02d}"})
    return f"Reminder to JSON: {request}", answer


def _time(hour: int, minute: int, rng: random.Random) -> str:
    """A time as people write it: 19:15, 7.15pm, 7pm."""
    if rng.random() < 0.5:
        return f"{hour:02d}:{minute:02d}"
    half, twelve = ("am" if hour < 12 else "pm"), (hour - 1) % 12 + 1
    return f"{twelve}{half}" if minute == 0 else f"{twelve}.{minute:02d}{half}"


def _shell(split: str, attempt: int, rng: random.Random) -> tuple[str, str]:
    wordings, command = SHELL[attempt % len(SHELL)]
    slots = {
        "file": rng.choice(FILES[split]),
        "folder": rng.choice(FOLDERS[split]),
        "word": rng.choice(WORDS[split]),
        "n": rng.choice(NUMBERS[split]),
    }
    return f"Shell command: {rng.choice(wordings).format(**slots)}", command.format(**slots)


KINDS: dict[str, Callable[[str, int, random.Random], tuple[str, str]]] = {"reminders": _reminder, "shell": _shell}
