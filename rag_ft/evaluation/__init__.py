"""The evaluation grid, predictions, metrics and statistics. Draws no report."""
