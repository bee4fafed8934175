"""`python -m r1lab` is the command `r1lab`."""

import sys

from r1lab.cli import main

sys.exit(main())
