"""Raw bytes -> documents: ingest reads the sources, curate selects and cleans documents. Imports no torch."""
