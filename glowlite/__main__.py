"""`python -m glowlite`, which is also what `torchrun -m glowlite` starts."""

import sys

from glowlite.cli import main

if __name__ == "__main__":
    sys.exit(main())
