"""Typed polars frames from Bitbucket's JSON, one module a table.

Every function is pure: the same JSON gives the same rows and ids on every installation.
"""
