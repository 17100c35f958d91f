"""The thumbs of a ChatGPT export, which lie in a file beside its conversations (`message_feedback.json`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from moltlm.data.conversations.archives import Member
from moltlm.data.conversations.marks import mark_of
from moltlm.data.errors import BadInput

NAME = "message_feedback.json"
LIMIT = 64 << 20
IDS = ("message_id", "messageId", "id")

Skip = Callable[[str, str], None]


@dataclass
class Feedback:
    """The ids of the answers that got a thumb down, by the folder of the export; and the paths of all its files."""

    paths: list[PurePosixPath] = field(default_factory=list)
    disliked: dict[PurePosixPath, frozenset[str]] = field(default_factory=dict)

    def of(self, path: PurePosixPath) -> frozenset[str]:
        """The ids for the conversations in a file."""
        return self.disliked.get(path.parent, frozenset())

    def holds(self, path: PurePosixPath) -> bool:
        """Whether a file is one that was read for its thumbs."""
        return path.name == NAME and path.parent in self.disliked


def feedback_of(members: Iterable[Member], skip: Skip) -> Feedback:
    """Read the feedback among the members of an archive, or the files of a folder. What is damaged is passed over."""
    feedback = Feedback()
    for member in members:
        feedback.paths.append(member.path)
        if member.path.name == NAME:
            feedback.disliked[member.path.parent] = frozenset()
            try:
                feedback.disliked[member.path.parent] = _disliked(member)
            except (BadInput, ValueError, RecursionError) as error:
                why = error.what if isinstance(error, BadInput) else "not valid JSON"
                skip(member.name, f"the thumbs of the export, which cannot be read ({why.rstrip('.')})")
    return feedback


def _disliked(member: Member) -> frozenset[str]:
    if member.error:
        raise member.error
    with member.open() as file:
        entries = json.loads(file.read(LIMIT))
    if isinstance(entries, dict):
        entries = next((value for value in entries.values() if isinstance(value, list)), [])
    ids = (
        next((entry[key] for key in IDS if isinstance(entry.get(key), str)), "")
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and mark_of({"feedback": entry.get("rating")}, {}).unwanted
    )
    return frozenset(filter(None, ids))
