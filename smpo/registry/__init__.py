"""Components (behaviour), cards (data), and how a skeleton is closed over them. No domain words."""
