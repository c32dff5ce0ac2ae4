"""Raw bytes -> documents: ingest reads the sources, curate decides what is kept. Imports no torch."""
