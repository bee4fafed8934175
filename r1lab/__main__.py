"""`python -m r1lab` is the command `r1lab`."""

import sys

from r1lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
