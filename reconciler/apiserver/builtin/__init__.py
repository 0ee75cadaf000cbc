"""The built-in kinds: their list, types, defaults, validation and table columns."""
