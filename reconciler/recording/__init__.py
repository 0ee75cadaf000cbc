"""Recordings: what the reconciles of an operator depended on, kept in order, to be read and replayed later."""

from reconciler.controller.effects import ExternalClient, ExternalResponse
from reconciler.recording.collector import Trace
from reconciler.recording.recording import Recording

__all__ = ["ExternalClient", "ExternalResponse", "Recording", "Trace"]
