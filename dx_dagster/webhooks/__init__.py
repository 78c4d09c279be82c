"""Webhooks: the hooks at Bitbucket, what their deliveries mean, and how these are applied."""
