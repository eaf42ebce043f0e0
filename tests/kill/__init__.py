"""Killing smpo, and going on."""
