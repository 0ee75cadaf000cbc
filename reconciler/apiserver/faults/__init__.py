"""Fault injection: requests that are refused, delayed, lost, or applied without an answer."""
