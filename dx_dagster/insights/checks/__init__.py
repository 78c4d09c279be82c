"""Checks of stored rows: `rules` says what must hold of each table, and `looking` finds what does not."""
