"""The trainings of a study as small files without weights: to combine what several machines trained, to store it, and
to compute the verdict again."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tarfile
from pathlib import Path

from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint
from moltlm.pipeline.config import Config
from moltlm.pipeline.identity import key_of
from moltlm.pipeline.run import Run

ALL = ("artifact.json", "inputs.json")
FILES = {
    "pairs": (*ALL, "README.md", "train.jsonl", "heldout.jsonl", "neutral_train.jsonl", "neutral_eval.jsonl"),
    "job-base": (*ALL, "records.jsonl"),
    "job": (*ALL, "records.jsonl", "weights/metrics.jsonl"),
    "knowledge-base": ALL,
    "knowledge-job": ALL,
}
SUFFIX = ".tar.xz"


def export_trainings(run: Run, folder: Path) -> list[Path]:
    """Write the run's pairs, bases and trainings into a folder, one file each: STAGE-FINGERPRINT.tar.xz. Existing files
    are left alone. `molt hypothesis export FOLDER CONFIG`

    Returns:
        The new files.

    Raises:
        BadInput: if nothing has been trained.
    """
    artifacts = [artifact for stage in FILES for artifact in run.stored(stage)]
    if not any(artifact.parent.name in ("job", "knowledge-job") for artifact in artifacts):
        raise BadInput(f"No training of a study is in {run.folder}.", "Run one: molt hypothesis run H014 CONFIG")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for artifact in artifacts:
        target = folder / f"{artifact.parent.name}-{artifact.name}{SUFFIX}"
        if not target.exists():
            partial = target.with_name(f"{target.name}.partial")
            partial.write_bytes(_packed(artifact, FILES[artifact.parent.name]))
            written.append(partial.rename(target))
    return written


def import_trainings(run: Run, folder: Path) -> list[Path]:
    """Unpack the files of a folder into the run, except for what the run has.
    `molt hypothesis import FOLDER CONFIG`

    Returns:
        The new artifacts' folders.

    Raises:
        BadInput: for a file that is truncated, or whose name is not the fingerprint of its inputs: one of another
            version, or an altered one.
    """
    imported = []
    for file in _files(folder):
        stage, _, key = file.name.removesuffix(SUFFIX).rpartition("-")
        target = run.folder / stage / key
        if stage not in FILES or target.exists():
            continue
        _unpack(file, stage, key, target)
        imported.append(target)
    return imported


def folder_apart(config: Config, folder: Path) -> str:
    """Where the trainings of a folder are judged alone: a run folder that no other training is in.

    Raises:
        BadInput: if there are none.
    """
    names = [file.name for file in _files(folder)]
    return str(Path(config.run.folder) / "recomputed" / f"{folder.name}-{fingerprint(names)}")


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise BadInput(f"No {SUFFIX} file is in {folder}.", "Write some: molt hypothesis export FOLDER CONFIG")
    return files


def _packed(artifact: Path, names: tuple[str, ...]) -> bytes:
    """The same bytes for the same content, whoever packs them and when."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", preset=9) as archive:
        for name in names:
            content = (artifact / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _unpack(file: Path, stage: str, key: str, target: Path) -> None:
    try:
        # decompressed to the end, since a truncated file may still give all its members
        content_bytes = lzma.decompress(file.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(content_bytes)) as archive:
            content = {name: archive.extractfile(name).read() for name in FILES[stage]}  # type: ignore[union-attr]
        inputs = json.loads(content["inputs.json"])
    except (tarfile.TarError, lzma.LZMAError, EOFError, KeyError, AttributeError, ValueError) as error:
        raise BadInput(
            f"{file} is truncated or damaged: {error}.", f"Export it again, or delete it: rm {file}"
        ) from None
    if key_of(stage, inputs) != key:
        raise BadInput(
            f"{file} is of another version, or was altered: its name is not the fingerprint of its inputs.",
            f"Delete it: rm {file}",
        )
    partial = target.with_name(f"{key}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by an interrupted training
    for name, data in content.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(data)
    partial.rename(target)
