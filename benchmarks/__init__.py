"""What an import costs, beside other ways to do the same: `make bench`. docs/performance.md has the results."""
