"""From labelled context rows to a trained adapter: token rows, fitting to length, preflight, TRL, checkpoints."""
