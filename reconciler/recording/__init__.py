"""Recordings: what the reconciles of an operator depended on, kept in order, to be read and replayed later."""

from reconciler.recording.collector import Trace

__all__ = ["Trace"]
