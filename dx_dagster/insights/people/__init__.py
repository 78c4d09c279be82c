"""People: which accounts are whose, what the people file says of them, and whom to forget.

`joining` decides from evidence alone, and `resolving` writes what it decides. `file` reads the people file, `stating`
stores it, `by_hand` links accounts and sets types, and `forgetting` empties what is stored of one person.
"""
