"""`python -m rlaif`: what the `rlaif` command runs, and what a stage's own process is started as."""

import sys

from rlaif.process import die_with_parent

die_with_parent()

if __name__ == "__main__":
    from rlaif.cli import main

    sys.exit(main())
