"""The built wheel: one import name, which works beside packages that are called like its rooms."""

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


def test_the_wheel_adds_one_import_name(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert names == {"moltlm"}
    assert {"pipeline", "adapters", "data", "evals", "configs"} < {
        path.name for path in (installed / "moltlm").iterdir()
    }
    assert not any(path.is_symlink() for path in installed.rglob("*"))


def test_the_wheel_works_beside_packages_of_the_same_names(installed: Path, tmp_path: Path) -> None:
    for name in ("data", "configs", "pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'user'")
    code = """
import sys
sys.path = [path for path in sys.path if not path.endswith("/src")]  # not the checkout's own
import configs, data, pipeline
assert data.OWNER == configs.OWNER == pipeline.OWNER
import moltlm
from moltlm.pipeline.cli import main
assert moltlm.__file__.startswith(sys.argv[1]), moltlm.__file__
main(sys.argv[2:])
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{installed}", "HOME": str(tmp_path)}
    for arguments in (["config", "check", "demo"], ["hypothesis", "run", "--help"], ["registry", "list", "demo"]):
        result = subprocess.run(
            [sys.executable, "-c", code, str(installed), *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
