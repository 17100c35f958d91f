"""The trainings of a study as small files, without weights: to bring together what several machines trained, to keep
it, and to judge it again."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tarfile
from pathlib import Path

from moltlm.data.errors import BadInput
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
    """Write what `folder` lacks of the run's pairs, bases and trainings, a file each: STAGE-FINGERPRINT.tar.xz. What is
    there is left alone. Raises BadInput when nothing has been trained.
    `molt hypothesis export FOLDER CONFIG`"""
    there = [folder for stage in FILES for folder in run.stored(stage)]
    if not any(path.parent.name in ("job", "knowledge-job") for path in there):
        raise BadInput(f"No training of a study is in {run.folder}.", "Run one: molt hypothesis run H014 CONFIG")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for artifact in there:
        target = folder / f"{artifact.parent.name}-{artifact.name}{SUFFIX}"
        if not target.exists():
            partial = target.with_name(f"{target.name}.partial")
            partial.write_bytes(_packed(artifact, FILES[artifact.parent.name]))
            written.append(partial.rename(target))
    return written


def import_trainings(run: Run, folder: Path) -> list[Path]:
    """Put what `folder` holds and the run lacks where the run looks for it. Raises BadInput for a file that is not
    whole, or whose name is not the fingerprint of its inputs: one of another version, or altered.
    `molt hypothesis import FOLDER CONFIG`"""
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if not found:
        raise BadInput(f"No {SUFFIX} file is in {folder}.", "Write some: molt hypothesis export FOLDER CONFIG")
    brought = []
    for file in found:
        stage, _, key = file.name.removesuffix(SUFFIX).rpartition("-")
        target = run.folder / stage / key
        if stage not in FILES or target.exists():
            continue
        _unpack(file, stage, key, target)
        brought.append(target)
    return brought


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
        whole = lzma.decompress(file.read_bytes())  # to its end: a cut file may still give all its members
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            content = {name: archive.extractfile(name).read() for name in FILES[stage]}  # type: ignore[union-attr]
        inputs = json.loads(content["inputs.json"])
    except (tarfile.TarError, lzma.LZMAError, EOFError, KeyError, AttributeError, ValueError) as error:
        raise BadInput(f"{file} is not whole: {error}.", f"Export it again, or take it away: rm {file}") from None
    if key_of(stage, inputs) != key:
        raise BadInput(
            f"{file} is of another version of molting, or was altered: its inputs do not give its name.",
            f"Take it away: rm {file}",
        )
    partial = target.with_name(f"{key}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a training that was interrupted here
    for name, data in content.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(data)
    partial.rename(target)
