"""The tables that kubectl prints of built-in kinds: their columns, and how the cells are computed."""
