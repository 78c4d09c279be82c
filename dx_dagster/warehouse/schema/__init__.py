"""Every table, one file for each capability."""
