"""The plane world: points instead of pictures, so that statistics over many seeds cost seconds."""
