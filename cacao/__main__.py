"""`python -m cacao`: the same as the command `cacao`."""

import sys

from cacao.cli import main

if __name__ == "__main__":
    sys.exit(main())
