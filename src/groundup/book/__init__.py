"""Run -> a book: what was built, from what, how it went, what it can and cannot do."""
