#!/bin/bash
# One GPU, or the CPUs of a machine without one.
#
#     launch/one-gpu.sh handbook.toml
#
# CUDA_VISIBLE_DEVICES=3 chooses the GPU. Everything after the blueprint is passed on to `groundup run`.
set -euo pipefail

exec groundup run "$@" --set runtime.ranks=1 --workspace "${WORKSPACE:-workspace}"
