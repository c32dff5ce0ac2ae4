"""Weights -> token ids. Knows ids only: no text, no tokenizer."""
