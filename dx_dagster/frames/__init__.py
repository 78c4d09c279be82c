"""Bitbucket's JSON as typed polars frames, one module a table.

Every function here is pure: the same JSON gives the same rows and ids on every installation.
"""
