"""Reports as people write them for DX: files of tiles, each a query and a chart."""
