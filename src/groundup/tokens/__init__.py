"""Documents -> rows of token ids. Imports no torch."""
