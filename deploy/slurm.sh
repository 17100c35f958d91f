#!/bin/bash
# A study on several nodes of a SLURM cluster: sbatch deploy/slurm.sh hypothesis run h014-135m evidence-135m
# Ray starts on every node; the command runs on the first one and ends with the records in its run folder, which should
# lie on a shared file system. Only that node needs it.
#SBATCH --job-name=moltlm
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=24:00:00
set -euo pipefail
# the environment in which moltlm[ray] is installed, at the same path on all nodes
source "${MOLT_VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"

export RAY_USAGE_STATS_ENABLED=0
# fetches are done once, before: molt assets pull
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

# CPUs and GPUs as SLURM gave them, and not as the node has them
srun --kill-on-bad-exit=0 ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
  -- molt "$@" --engine ray
