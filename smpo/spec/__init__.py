"""The spec language: text, located tree, layers, identity.

Knows YAML and pydantic, and nothing of what is studied.
"""
