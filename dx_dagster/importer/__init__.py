"""The import itself: for each kind of thing, which are stale (a query), fetch them, shape them, merge and mark.

What is left to do is always a query over marks in the database, so a killed import goes on where it stopped.
"""
