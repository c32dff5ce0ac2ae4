"""Errors that tell the user what to do.

GroundupError               what is wrong, where, the value, what to do; printed without a traceback, exit 2
├── BlueprintError          the blueprint describes something that can't be built
├── StoreError              an artifact is missing, damaged, or being built by another process
│   └── DamagedInputError   an input was damaged after it was verified, and is deleted
├── DataError               the data can't be used
│   └── InputChangedError   an external file changed while a stage read it
└── TrainingError           training had to stop
"""


class GroundupError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class BlueprintError(GroundupError):
    """The blueprint describes something that can't be built."""


class StoreError(GroundupError):
    """An artifact is missing, damaged, or being built by another process."""


class DamagedInputError(StoreError):
    """An artifact that a stage was about to read doesn't match its checksums. It is deleted: build it again."""


class DataError(GroundupError):
    """The data can't be used."""


class InputChangedError(DataError):
    """An external file changed while a stage read it: what was read isn't what the fingerprint covers."""


class TrainingError(GroundupError):
    """Training had to stop."""
