"""Logs and traces for the tools of an operator: each off until a setting asks for it."""
