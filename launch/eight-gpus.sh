#!/bin/bash
# The GPUs of one machine, a rank for each.
#
#     launch/eight-gpus.sh handbook.toml
#     RANKS=4 launch/eight-gpus.sh handbook.toml      # the same run, continued on four
#
# Everything after the blueprint is passed on to `groundup run`.
set -euo pipefail

exec groundup run "$@" --set runtime.ranks="${RANKS:-8}" --workspace "${WORKSPACE:-workspace}"
