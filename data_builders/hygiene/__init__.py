"""Splits by group, near-duplicates, decontamination: pure functions that the `clean` step calls. Reads no files."""
