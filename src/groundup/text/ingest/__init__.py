"""Raw files to documents: sources, formats, text extraction."""
