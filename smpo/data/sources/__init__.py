"""File formats and places: parquet, JSON annotations, WebDataset archives, URLs and hubs."""
