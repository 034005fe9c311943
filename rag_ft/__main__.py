"""`python -m rag_ft` is `rag-ft`."""

import sys

from rag_ft.cli import main

if __name__ == "__main__":
    sys.exit(main())
