"""Passages of the corpus, and the search among them."""
