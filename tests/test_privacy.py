"""What the page on privacy promises: nothing is sent, and corrections are for their owner alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WATCHED = """
import sys, time
asked = []
def hook(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        asked.append(f"{event} {arguments[:2]}")
sys.addaudithook(hook)
from moltlm.pipeline import cli
for command in (["data", "build"], ["train", "personality"], ["eval", "capability", "--state", "base"]):
    try:
        cli.main([*command, *sys.argv[1:]])
    except SystemExit as stopped:
        assert not stopped.code, command
time.sleep(1)  # telemetry is sent by a thread
sys.exit("; ".join(asked) if asked else 0)
"""


def test_building_training_and_measuring_a_local_model_contact_nobody(tiny_project: Path, tmp_path: Path) -> None:
    """Also with no variable set that keeps the libraries beneath offline."""
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    arguments = [str(tiny_project / "project.yaml"), f"run.folder={tmp_path}/run", "personality.steps=2"]
    process = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
