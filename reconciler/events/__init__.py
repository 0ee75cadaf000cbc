"""Record what happened to an object as Events, for ``kubectl describe``, without flooding the API server.

What the recorder guarantees: a caller never waits and never gets an error from the server; identical events become one
Event with a count; many similar ones become one combined Event; an object that produces events without end gets few
through; memory is bounded, and what is dropped is counted. Numbers and behaviour are those of client-go's classic
recorder, so that Events look as people expect. An Event is best effort: state belongs into ``status``.
"""

from reconciler.events.correlator import Correlator
from reconciler.events.recorder import EventRecorder, EventSink, EventStatistics

__all__ = ["Correlator", "EventRecorder", "EventSink", "EventStatistics"]
