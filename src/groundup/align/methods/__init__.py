"""The registry of alignment methods, one per file; `use` in an `[[align]]` table names one."""

from groundup.align.method import Method, MethodContext, Session

__all__ = ["Method", "MethodContext", "Session"]
