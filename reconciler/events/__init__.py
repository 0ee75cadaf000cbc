"""Event recording: Kubernetes Events about objects, as shown by ``kubectl describe``.

The recorder never blocks its caller and never raises errors of the API server. Identical events become one Event with a
count, and many similar ones become one combined Event. Events are rate-limited per object. Memory is bounded, and
dropped events are counted. Numbers and behavior are those of client-go's classic recorder. Events are best effort: keep
state in ``status``.
"""

from reconciler.events.recorder import EventRecorder

__all__ = ["EventRecorder"]
