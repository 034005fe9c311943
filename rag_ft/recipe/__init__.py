"""What a recipe may say: its settings, loading, cross-field rules, messages and schema."""
