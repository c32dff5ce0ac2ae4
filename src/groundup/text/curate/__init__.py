"""Curation: filters, deduplication, decontamination, mixing."""
