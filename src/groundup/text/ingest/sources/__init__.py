"""Registry `sources`: one file per source of text; each satisfies `text/ingest/types.py: Source`."""
