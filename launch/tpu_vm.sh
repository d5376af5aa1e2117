#!/usr/bin/env bash
# Train on every worker of a Cloud TPU VM: the same line runs on each host, and
# jax.distributed finds the others by itself.
#
#   launch/tpu_vm.sh NAME ZONE GIT_URL --config imagen/base_64 --workdir gs://BUCKET/base
#
# NAME and ZONE are the TPU VM's; GIT_URL is where the workers clone this repository
# from. Run again after a preemption: the run goes on from its last checkpoint.
set -euo pipefail
if [ "$#" -lt 5 ]; then
  sed -n '2,9p' "$0" >&2
  exit 2
fi
name=$1 zone=$2 url=$3
shift 3
arguments=$(printf '%q ' "$@")
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker all --command "
  set -e
  [ -d imagen_jax ] || git clone --depth 1 '$url' imagen_jax
  cd imagen_jax
  [ -d .venv ] || python3.11 -m venv .venv
  .venv/bin/pip install -q -e '.[train,tpu]'
  .venv/bin/imagen-jax train --distributed $arguments"
