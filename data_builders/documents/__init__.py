"""Documents of a folder become passages: reading (read.py), assembling and chunking (chunks.py), gold (evidence.py)."""
