"""Webhook deliveries as they are stored: intake, inbox, and the secrets that sign them."""
