"""Raw bytes -> documents: acquire reads the sources, curate decides what is kept. Imports no torch."""
