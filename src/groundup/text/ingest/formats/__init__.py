"""File formats: one module per format, which reads the texts in a file's bytes; `detect.py` chooses the module.

Each module has one function `read(path, file, options, skip=0) -> Iterator[ExtractedText | ReadIssue]`: `file` is a
seekable binary file, `skip` the number of records to pass over without decoding (formats that have records). Formats
with rows (JSON lines, JSON arrays, Parquet) also have `rows` with the same arguments: the rows as they are.
Nothing in a file is fatal: what can't be read becomes a ReadIssue with its reason.
"""
