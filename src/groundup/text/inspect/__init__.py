"""Corpus inspection: documents read, kept, dropped, changed and rejected, with reasons.

`collect` gathers a report of bounded size from a corpus of any size; `page` writes it as one HTML file, `overview`
to the terminal; `lookup` has the history of one document.
"""
