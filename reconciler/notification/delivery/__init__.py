"""Delivery: schedule, turns, channel calls, outcomes."""
