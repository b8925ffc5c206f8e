#!/usr/bin/env bash
# Prepare a mixture by a SLURM array: N parts at once, then one job for what needs them all.
#
#   scripts/slurm_array.sh path/to/mixture.json 16 [options of `opentau-prep run`]
#
# Without SLURM (no sbatch on the path) the parts run on this machine, one after the other. A part
# that fails or is killed may be submitted again: what is done already is skipped.
set -euo pipefail

mixture=$1
parts=$2
shift 2
run=(opentau-prep run --mixture-json "$mixture" "$@")

if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
  exec "${run[@]}" --shard "$SLURM_ARRAY_TASK_ID/$parts"
elif command -v sbatch >/dev/null; then
  array=$(sbatch --parsable --array="1-$parts" --requeue "$0" "$mixture" "$parts" "$@")
  sbatch --dependency="afterok:$array" --wrap "$(printf '%q ' "${run[@]}")"
else
  for part in $(seq "$parts"); do
    "${run[@]}" --shard "$part/$parts"
  done
  exec "${run[@]}"
fi
