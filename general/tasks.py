"""The tasks of the general worker."""

from shared.entry import async_execute_bin

__all__ = ["async_execute_bin"]
