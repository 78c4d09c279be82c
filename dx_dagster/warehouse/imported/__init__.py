"""SQL over what was imported: what is stored, what is stale, what follows from it."""
