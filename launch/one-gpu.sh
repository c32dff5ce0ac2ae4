#!/bin/bash
# One GPU, or the CPUs of a machine without one.
#
#     launch/one-gpu.sh handbook.toml
#
# CUDA_VISIBLE_DEVICES=3 selects the GPU. Arguments after the blueprint are passed to `groundup run`.
set -euo pipefail

exec groundup run "$@" --set runtime.ranks=1 --workspace "${WORKSPACE:-workspace}"
