#!/bin/sh
# Install r1lab without a network, from the folder that this script is in: sh install.sh [FOLDER]
# Written by `make offline` for Python @PYTHON@ on @SYSTEM@.
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-r1lab}

stop() {
  echo "r1lab: $*" >&2
  exit 2
}

python=${PYTHON:-python@PYTHON@}
about='import platform, sys; print("%d.%d" % sys.version_info[:2], platform.system(), platform.machine())'
[ "$("$python" -c "$about" 2>/dev/null)" = "@PYTHON@ @SYSTEM@" ] ||
  stop "$python will not do: this folder is for Python @PYTHON@ on @SYSTEM@; name one: PYTHON=/path/to/python sh install.sh"
mkdir -p "$target" 2>/dev/null && [ -w "$target" ] ||
  stop "nothing can be written to $target; give another folder: sh install.sh FOLDER"
echo "Installing r1lab in $target; it takes minutes"
"$python" -m venv "$target/.venv" >/dev/null || stop "$python has no venv module; install it (Debian: python@PYTHON@-venv)."
cd "$target" || exit 2
.venv/bin/python -m pip --isolated install --quiet --no-index --find-links "$here/wheels" r1lab ||
  stop "pip failed, as it says above; see that 3 GB of disk are free and copy the folder again."
.venv/bin/r1lab lab --copy-only
echo "Installed. Begin with: cd '$target'; .venv/bin/r1lab lab"
