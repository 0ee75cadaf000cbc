"""Fault injection: requests that are refused, delayed, lost, or applied without a response."""
