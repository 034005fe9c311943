"""From scores to a page people read: figures, one self-contained HTML file, Markdown. Measures nothing."""
