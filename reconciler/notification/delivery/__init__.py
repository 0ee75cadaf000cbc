"""Delivery: scheduling, fair queuing, and the calls of channels."""
