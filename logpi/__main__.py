"""`python -m logpi` is `logpi`."""

import sys

from logpi.cli import main

sys.exit(main())
