"""The flush: computing the new status, sending it, and deciding what an outcome means."""
