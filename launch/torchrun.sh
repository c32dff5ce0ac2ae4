#!/bin/bash
# Several machines without a scheduler, with torchrun's agent on each. Start this on every machine:
#
#     HEAD=gpu-a:29400 WORKSPACE=/shared/workspace launch/torchrun.sh handbook.toml
#
# HEAD is the machine of the rendezvous; start it first. Machines may leave and join later.
set -euo pipefail

# A separate rendezvous store per start: a machine that returns isn't registered in the agents' shared store.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

conf="join_timeout=${JOIN_SECONDS:-600}"                # seconds an agent waits for the minimum of machines,
conf="$conf,last_call_timeout=${LAST_CALL_SECONDS:-30}" # and then for more
conf="$conf,keep_alive_interval=${BEAT_SECONDS:-5}"     # an agent is lost after three missed heartbeats

exec torchrun \
    --nnodes "${NODES:-1:2}" \
    --nproc-per-node "${RANKS_PER_NODE:-gpu}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${HEAD:?set HEAD to host:port of the rendezvous machine}" \
    --rdzv-id "${RUN_ID:-groundup}" \
    --rdzv-conf "$conf" \
    --max-restarts "${RESTARTS:-3}" \
    --no-python \
    groundup run "$@" --workspace "${WORKSPACE:-workspace}"
