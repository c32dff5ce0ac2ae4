"""Documents to a corpus: filters, deduplication, decontamination, mixing."""
