#!/bin/bash
# One machine, one rank per GPU.
#
#     launch/eight-gpus.sh handbook.toml
#     RANKS=4 launch/eight-gpus.sh handbook.toml      # resumes the same run on four
#
# Arguments after the blueprint are passed to `groundup run`.
set -euo pipefail

exec groundup run "$@" --set runtime.ranks="${RANKS:-8}" --workspace "${WORKSPACE:-workspace}"
