"""Labels for context rows: relevance, evidence, analysis, answer. From annotations or a teacher; gated."""
