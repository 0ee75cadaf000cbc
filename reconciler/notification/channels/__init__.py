"""Deliver messages: one module a medium. What a channel is stands in `reconciler.notification._channel`."""

from reconciler.notification.channels._console import ConsoleChannel
from reconciler.notification.channels._file import FileChannel
from reconciler.notification.channels._log import LogChannel

__all__ = ["ConsoleChannel", "FileChannel", "LogChannel"]
