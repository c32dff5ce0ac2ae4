"""Errors a person can act on.

GroundupError               what is wrong, where, the value, what to do; printed without a traceback, exit 2
├── BlueprintError          the blueprint says something that can't be built
├── StoreError              an artifact is missing, damaged, or being built by somebody else
├── DataError               the data can't be used
└── TrainingError           training had to stop
"""


class GroundupError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class BlueprintError(GroundupError):
    """The blueprint says something that can't be built."""


class StoreError(GroundupError):
    """An artifact is missing, damaged, or being built by another process."""


class DataError(GroundupError):
    """The data can't be used."""


class TrainingError(GroundupError):
    """Training had to stop."""
