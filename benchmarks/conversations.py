"""Speed and memory of importing conversations.

    python benchmarks/conversations.py speed --megabytes 60
    python benchmarks/conversations.py speed --file chats.jsonl
    python benchmarks/conversations.py memory --gigabytes 5 --folder /tmp

`speed` writes JSONL of `messages`, or takes a file of yours, and reports MB per CPU second on one core: reading alone,
with near-duplicates, with redaction, and with both as `molt data import` does. `memory` writes a ChatGPT export, one
JSON array in one file, reads it in a process of its own as `molt data import` does, and again inside a zip archive, and
reports the peak of its resident memory.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers
from moltlm.data.conversations.redact import redact
from moltlm.data.conversations.report import ImportReport

TEXT = """
the clock stopped last night and the spring is worn so wind it slowly until it hums then wait for rain because
brass remembers every hand that held it tell me how long the pendulum swings before noon why does dust settle
on the case can you mend an escapement without oil yes with patience a small file good light some tea never
hurry old wheels they sulk
"""
WORDS = TEXT.split()

CHILD = """
import json, resource, sys
from pathlib import Path
from moltlm.data.config import ImportConfig
from moltlm.data.conversations import importers
from moltlm.data.conversations.report import ImportReport
report = ImportReport()
config = ImportConfig()
count = sum(1 for _ in importers.read([Path(sys.argv[1])], config, report))
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([count, usage.ru_maxrss / 2**20, usage.ru_utime + usage.ru_stime]))
"""


def texts(seed: int = 0) -> Iterator[str]:
    """Texts of 20 to 400 words, all different: prose with a number now and then."""
    draw = random.Random(seed)
    while True:
        words: list[str] = draw.choices(WORDS, k=draw.randint(20, 400))
        words[draw.randrange(len(words))] = str(draw.randint(2, 99999))
        yield " ".join(words).capitalize() + "."


def write_messages(path: Path, size: int) -> int:
    """Write JSONL with `messages` of six turns a line, up to `size` bytes; returns the size."""
    source, written = texts(), 0
    with path.open("w", encoding="utf-8") as out:
        while written < size:
            turns = [{"role": ("user", "assistant")[place % 2], "content": next(source)} for place in range(6)]
            written += out.write(json.dumps({"messages": turns}) + "\n")
    return path.stat().st_size


def write_export(path: Path, size: int) -> int:
    """Write a ChatGPT export of `size` bytes, trees of forty messages; returns the number of answers."""
    written, count, draw = 0, 0, random.Random(0)
    phrases = [" ".join(draw.choices(WORDS, k=8)) for _ in range(20_000)]
    with path.open("w", encoding="utf-8") as out:
        while written < size:
            nodes = {"0": {"id": "0", "parent": None, "children": ["1"], "message": None}}
            for place in range(1, 41):
                content = {"content_type": "text", "parts": [", ".join(draw.choices(phrases, k=draw.randint(3, 30)))]}
                author = {"role": "user" if place % 2 else "assistant", "name": None, "metadata": {}}
                message = {"id": str(place), "author": author, "content": content, "recipient": "all", "metadata": {}}
                nodes[str(place)] = {"id": str(place), "parent": str(place - 1), "children": [], "message": message}
            record = {"title": "Clock", "mapping": nodes, "current_node": "40", "conversation_id": str(count)}
            written += out.write((",\n" if count else "[") + json.dumps(record))
            count += 1
        out.write("]")
    return count * 20


def timed(path: Path, config: ImportConfig) -> tuple[float, int]:
    """CPU seconds of an import, and the number of exchanges."""
    begun = time.process_time()
    count = sum(1 for _ in importers.read([path], config, ImportReport()))
    return time.process_time() - begun, count


def speed(megabytes: int, file: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = file or Path(folder) / "chats.jsonl"
        size = (path.stat().st_size if file else write_messages(path, megabytes * 1_000_000)) / 1e6
        configs = {
            "reading": ImportConfig(near_duplicate=1, redact=False),
            "reading, near-duplicates": ImportConfig(redact=False),
            "reading, redaction": ImportConfig(near_duplicate=1),
            "reading, near-duplicates, redaction": ImportConfig(),
        }
        for name, config in configs.items():
            seconds, count = timed(path, config)
            print(f"{name}: {size / seconds:.0f} MB per CPU second ({size:.0f} MB, {count} exchanges)", flush=True)
    source = texts(1)
    sample = [next(source) for _ in range(3000)]
    begun = time.process_time()
    for text in sample:
        redact(text)
    seconds, length = time.process_time() - begun, sum(map(len, sample)) / 1e6
    print(f"redaction alone: {length / seconds:.0f} MB per CPU second")


def memory(gigabytes: float, folder: Path) -> None:
    path, packed = folder / "molt-conversations.json", folder / "molt-export.zip"
    try:
        answers = write_export(path, int(gigabytes * 1e9))
        _measured(path, answers)
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(path, "conversations.json")
        path.unlink()
        _measured(packed, answers)
    finally:
        path.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)


def _measured(path: Path, answers: int) -> None:
    size = path.stat().st_size / 1e9
    run = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True)
    count, gibibytes, seconds = json.loads(run.stdout)
    if count != answers:
        raise SystemExit(f"{path}: {count} exchanges of {answers} answers")
    print(f"{path.suffix} of {size:.2f} GB: {count} exchanges, {gibibytes:.2f} GiB at most, {seconds:.0f} CPU seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_speed = commands.add_parser("speed")
    of_speed.add_argument("--megabytes", type=int, default=60)
    of_speed.add_argument("--file", type=Path, help="conversations of yours instead of written ones")
    of_memory = commands.add_parser("memory")
    of_memory.add_argument("--gigabytes", type=float, default=5.0)
    of_memory.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    if options.command == "speed":
        speed(options.megabytes, options.file)
    else:
        memory(options.gigabytes, options.folder)


if __name__ == "__main__":
    main()
