"""The steps of an import. Each finds what is stale, fetches it, builds frames, and merges them with their marks.

What is left to do is always a query over marks in the database, so a killed import resumes where it stopped.
"""
