"""The files of an artifact, sealed when it is made: what a disk or a hand has changed since is named, not read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, sha256_file, to_json, write_json

ARTIFACT, INPUTS = "artifact.json", "inputs.json"
FINISHED = "finished.json"
"""File in the folder of a cycle that is finished: its candidate and its outcome. It is written after the others."""
CYCLES = "retrain"
"""The stage of cycles."""
FETCHED = "fetched.json"
"""File in the folder of a cycle that another machine has made."""
UNSEALED = (ARTIFACT, FINISHED, FETCHED)


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Write what is known of an artifact, with the hashes of its files and of itself."""
    sealed = json.loads(to_json({**record, "files": _hashes(folder)}))
    write_json(folder / ARTIFACT, {**sealed, "sha256": fingerprint(sealed)})


def is_whole(folder: Path, name: str, key: str) -> bool:
    """Whether a folder has all files of an artifact, of this stage and fingerprint, as they were sealed, and no
    others."""
    try:
        record = read_record(folder)
    except BadInput:
        return False
    return (record["stage"], record["fingerprint"], record.get("files")) == (name, key, _hashes(folder))


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNSEALED
    }


def reseal(folder: Path) -> None:
    """Take the files of an artifact for what it consists of now, after some were changed on purpose."""
    raw = read_json(folder / ARTIFACT)
    seal(folder, {key: value for key, value in raw.items() if key not in ("files", "sha256")})


def inputs_of(folder: Path) -> dict[str, Any]:
    """What an artifact depends on. Raises BadInput if that is damaged."""
    return read_json(intact(folder, INPUTS))


def intact(folder: Path, name: str) -> Path:
    """A file of an artifact. Raises BadInput if it is not as it was written. In a folder that is no artifact, or none
    yet, nothing is compared."""
    digest = read_record(folder).get("files", {}).get(name) if (folder / ARTIFACT).is_file() else None
    if digest and not ((folder / name).is_file() and sha256_file(folder / name) == digest):
        raise _damaged(folder / name, folder)
    return folder / name


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of an artifact. Raises BadInput if that is damaged."""
    path = folder / ARTIFACT
    try:
        raw = read_json(path)
        digest = raw.pop("sha256", None)
    except (BadInput, AttributeError):
        raise _damaged(path, folder) from None
    is_sealed = digest is not None or "files" in raw  # what another machine has sent may be without a seal
    if is_sealed and fingerprint(raw) != digest:
        raise _damaged(path, folder)
    return raw


def _damaged(path: Path, folder: Path) -> BadInput:
    what, again = f"{path} is not as it was written.", shlex.join(["rm", "-r", str(folder)])
    if folder.parent.name == "retrain":
        return BadInput(
            what,
            f"Put it back from a copy, or give up what it says; what is in use stays, and the next cycle takes its "
            f"conversations for new: {again}",
        )
    return BadInput(what, f"Remove the folder, which is made again when it is needed: {again}")
