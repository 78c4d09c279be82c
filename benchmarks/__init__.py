"""The cost of an import compared with other ways: `make bench`. docs/performance.md has the results."""
