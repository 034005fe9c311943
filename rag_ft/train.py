"""`accelerate launch -m rag_ft.train RECIPE [a.b=c ...]`: the train verb as a module, for launchers."""

import sys

from rag_ft.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
