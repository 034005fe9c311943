"""Questions for documents that have none: written by a teacher, kept where they can be checked. Writes no labels."""
