#!/bin/bash
# Several machines without a scheduler: torchrun's agent on each of them. Start this on every machine:
#
#     HEAD=gpu-a:29400 WORKSPACE=/shared/workspace launch/torchrun.sh handbook.toml
#
# HEAD is one of them, where the agents meet; start it first. Machines may leave and come later.
set -euo pipefail

# A meeting place of its own for every start: in the agents' store, a machine that comes back is not found.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

conf="join_timeout=${JOIN_SECONDS:-600}"                # how long an agent waits for enough machines,
conf="$conf,last_call_timeout=${LAST_CALL_SECONDS:-30}" # and then for more of them
conf="$conf,keep_alive_interval=${BEAT_SECONDS:-5}"     # who misses three beats is gone

exec torchrun \
    --nnodes "${NODES:-1:2}" \
    --nproc-per-node "${RANKS_PER_NODE:-gpu}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${HEAD:?set HEAD to host:port of the machine where the agents meet}" \
    --rdzv-id "${RUN_ID:-groundup}" \
    --rdzv-conf "$conf" \
    --max-restarts "${RESTARTS:-3}" \
    --no-python \
    groundup run "$@" --workspace "${WORKSPACE:-workspace}"
