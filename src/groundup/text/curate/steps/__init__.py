"""Registry `steps`: one file per curation step; each satisfies `text/curate/types.py: Step`."""
