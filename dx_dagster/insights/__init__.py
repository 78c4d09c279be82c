"""From imported rows to meaning: people, reviews and DX's unified tables."""
