"""Look into a corpus: what was read, kept, dropped, changed and kept aside, and why.

in:  the artifacts of ingest and curate
out: a `Story` (collect.py), shown as one HTML file (page.py) or in the terminal (overview.py);
     one document's way, by id or by search (lookup.py)

Everything is read as a stream, and samples are chosen by a hash of the document's id: memory stays small, and the
same artifacts give the same page.
"""
