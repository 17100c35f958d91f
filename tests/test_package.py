"""The built wheel, in an empty folder and beside a user's own `data/` folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content as `pip install --target` lays it out; the dependencies are those of this environment."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        wheel.extractall(out / "site")
    return out / "site"


@pytest.mark.parametrize("beside_own_data", [False, True])
def test_the_wheel_works(installed: Path, tmp_path: Path, beside_own_data: bool) -> None:
    if beside_own_data:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "mine.jsonl").write_text("{}")
    code = "import sys; sys.path.pop(0); from pipeline.cli import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(tmp_path)}
    for arguments in (["config", "check", "demo"], ["hypothesis", "run", "--help"], ["registry", "list", "demo"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import data, configs; print(data.__file__, configs.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.count(str(installed)) == 2
