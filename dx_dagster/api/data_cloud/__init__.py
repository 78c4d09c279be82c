"""DX's Data Cloud API: routes, envelope and reference."""
