"""Connections and their credentials: input, verification, health and changes."""
