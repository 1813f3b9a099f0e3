"""The tasks of the api_deployment worker."""

from shared.entry import async_execute_bin

__all__ = ["async_execute_bin"]
