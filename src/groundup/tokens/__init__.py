"""Documents -> packed sequences of token ids. Imports no torch."""
