"""What is computed once about data and shared by all runs: scores in sqlite, encoded rows in shards."""
