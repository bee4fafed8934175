#!/bin/sh
# One machine, one process for each GPU:
#   sh r1lab/launch/node.sh PRESET [options of r1lab zero]
# On a machine without a GPU: PROCESSES=2 sh r1lab/launch/node.sh cpu --parallel.shard
# A process that dies takes the others along; torchrun then starts all of them again, and the run
# goes on from its last checkpoint. Not run on any GPU yet.
set -eu
preset=${1:?name a preset of r1lab zero, for example qwen2.5-1.5b-8gpu}
shift
python -m r1lab plan --preset "$preset" # ends here, with the reason, if it will not fit
# Told to end, a run saves after its step; torchrun would wait 30 s for it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}"
exec torchrun --standalone --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-1}" \
  -m r1lab zero --preset "$preset" "$@"
