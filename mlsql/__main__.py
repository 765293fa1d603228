"""``python -m mlsql`` is the command line."""

import sys

from .shell.main import main

sys.exit(main())
