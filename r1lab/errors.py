"""The one error that means: your input is wrong, and here is what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input, explained in one sentence. The command line prints it and exits with code 2."""


@contextmanager
def exit_codes() -> Iterator[None]:
    """Of a program beside the command line: 2 after bad input, explained in one sentence, and 130 where
    the user stopped it."""
    try:
        yield
    except InputError as error:
        print(f"r1lab: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on.", file=sys.stderr)
        sys.exit(130)
