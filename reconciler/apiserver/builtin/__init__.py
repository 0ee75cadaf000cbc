"""The built-in kinds as data: types, defaults, strategies, table columns."""
