#!/bin/sh
# One machine, one process for each GPU:
#   sh r1lab/launch/node.sh PRESET [options of r1lab zero]
#   COMMAND=sft sh r1lab/launch/node.sh openr1-1.5b [options of r1lab sft]
# On a machine without a GPU: PROCESSES=2 sh r1lab/launch/node.sh cpu --parallel.shard
# A process that dies takes the others along; torchrun then starts all of them again, and the run
# goes on from its last checkpoint: tested with two processes on a CPU. Not run on any GPU yet.
set -eu
preset=${1:?name a preset of r1lab zero, for example qwen2.5-1.5b-8gpu}
shift
for option; do
  if [ "$option" = --overwrite ]; then
    echo "node.sh: every restart would obey --overwrite, and delete the checkpoint that it should go" \
      "on from; remove the run's folder by hand, or give --name for another run." >&2
    exit 2
  fi
done
python -m r1lab plan --preset "$preset" # ends here, with the reason, if it will not fit
# torchrun's store outlives a restart, and holds the addresses of the processes that died: a process that
# asks for its neighbour's before that one has written a new one finds nobody there. So each start has its own.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# When asked to end, a run saves after its step; torchrun would wait 30 s for it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}"
exec torchrun --standalone --nproc-per-node "${PROCESSES:-gpu}" --max-restarts "${RESTARTS:-1}" \
  -m r1lab "${COMMAND:-zero}" --preset "$preset" "$@"
