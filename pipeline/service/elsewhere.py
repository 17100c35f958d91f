"""The schedule for machines of others: files for Kubernetes and SLURM, and lines for a container and for HF Jobs."""

from __future__ import annotations

import re
import shlex

import yaml

from moltlm.pipeline.config import ScheduleConfig
from moltlm.pipeline.service import timing

PROJECT = "/project"
"""Where a container finds the project's folder."""


def kubernetes(name: str, schedule: ScheduleConfig, arguments: list[str], image: str) -> str:
    """A CronJob that retrains in a volume with the project's folder.

    Cycles do not overlap, and one that was missed is caught up within a day. A candidate that is not promoted is no
    failure.
    """
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    container = {
        "name": "molt",
        "image": image,
        "workingDir": PROJECT,
        "command": ["/bin/sh", "-c", f"{shlex.join(['molt', *arguments])} || test $? -eq 3"],
        "volumeMounts": [{"name": "project", "mountPath": PROJECT}],
    }
    volume = {"name": "project", "persistentVolumeClaim": {"claimName": label}}
    pod = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    spec = {
        "schedule": timing.cron_time(schedule, name),
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 24 * 60 * 60,
        "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}},
    }
    document = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": label}, "spec": spec}
    return yaml.safe_dump(document, sort_keys=False)


def slurm(name: str, schedule: ScheduleConfig, folder: str, file: str, command: str) -> str:
    """A batch file that submits itself again before it retrains, so that a failed cycle does not end the schedule."""
    label = re.sub(r"[^\w.-]+", "-", name)
    return f"""#!/bin/bash
#SBATCH --job-name={label}
#SBATCH --dependency=singleton
#SBATCH --output={label}.log
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
cd {shlex.quote(folder)} || exit 1
sbatch --begin="{timing.gnu_date(schedule, name)}" {shlex.quote(file)} || exit 1
{command} &
cycle=$!
trap 'kill -TERM "$cycle"' TERM
wait "$cycle"
code=$?
[ "$code" -eq 3 ] && exit 0  # judged and not promoted, which is not a failure
exit "$code"
"""


def hf_jobs(name: str, schedule: ScheduleConfig, arguments: list[str], image: str) -> str:
    """The command that schedules it as a job of Hugging Face, in a bucket with the project's folder."""
    shell = f"cd {PROJECT} && {shlex.join(['molt', *arguments])} || test $? -eq 3"
    words = ["hf", "jobs", "scheduled", "run", "--no-concurrency", "--name", name]
    words += ["-v", f"hf://buckets/NAMESPACE/BUCKET:{PROJECT}:rw", timing.cron_time(schedule, name), image]
    return shlex.join([*words, "/bin/sh", "-c", shell])
