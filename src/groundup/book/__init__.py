"""RUN -> BOOK: a report on the data, the training and the abilities of the model, as HTML and PDF."""
