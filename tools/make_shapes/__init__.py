"""How the world's weights and pairs were made, from seeds: see ../README.md for the commands."""
