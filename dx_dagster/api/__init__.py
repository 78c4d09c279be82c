"""The ASGI application: receiver of webhooks, Data Cloud API, connections pages."""
