"""Operators of other projects, written anew on this library."""
