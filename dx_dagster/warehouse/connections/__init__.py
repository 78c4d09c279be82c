"""Connections, credentials and webhook secrets as they are stored, and the keys that encrypt them."""
