"""The command line: the commands of `commands.toml`, each of which is imported only when it is chosen."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pkgutil import resolve_name
from typing import NamedTuple

# What PyTorch and tokenizers read when they are imported: see training.processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import r1lab
from r1lab.errors import InputError, require_known
from r1lab.files import read_toml

BAD_INPUT, STOPPED = 2, 130
NO_ROOM = (errno.EACCES, errno.EROFS, errno.ENOSPC)  # nothing can be written here


class Command(NamedTuple):
    """Where a command is (module:name), and one line of help.

    Of one that has `presets`, the values of the chosen preset are the defaults of its options: a
    configuration, or several values by name. tyro makes the options from the command's signature.
    """

    place: str
    line: str
    presets: str = ""


COMMANDS = {name: Command(**about) for name, about in read_toml(__file__, "commands").items()}


def load_command(name: str, args: Sequence[str]) -> Callable:
    """Import a command. Raises InputError for a command or a preset that does not exist."""
    if sys.platform == "win32":
        raise InputError("Windows alone cannot run r1lab: type wsl --install, and install r1lab in the Linux there.")
    require_known(name, COMMANDS, "command")
    command = COMMANDS[name]
    function = resolve_name(command.place)
    if not command.presets:
        return function
    presets, parser = resolve_name(command.presets), argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", default=next(iter(presets)))
    preset = parser.parse_known_args(list(args))[0].preset
    require_known(preset, presets, f"preset of {name}")
    chosen = presets[preset]
    return partial(function, **(chosen if isinstance(chosen, dict) else {"config": chosen}))


def print_help():
    print(f"{r1lab.__doc__}\n\nusage: r1lab COMMAND [--help] [options]\n")
    for name, command in COMMANDS.items():
        print(f"  {name:9} {command.line}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: something ill was found (doctor); 2: bad input, explained in one
    sentence; 130: stopped by the user."""
    name, *args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print_help()
        return 0
    return exit_code(partial(_run, name, args))


def _run(name, args):
    command = load_command(name, args)
    import tyro  # only now: help must come at once

    return tyro.cli(command, args=args, prog=f"r1lab {name}")


def exit_code(work: Callable[[], int | None]) -> int:
    """Do the work of a program; bad input and an interruption are each said in one sentence."""
    try:
        return work() or 0
    except InputError as error:
        print(f"r1lab: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"r1lab: {error}; start it in a folder that you may write to, on a disk with room.", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
        return STOPPED
