"""The one place where questions, passages and labels become text and token ids, and where answers are read back."""
