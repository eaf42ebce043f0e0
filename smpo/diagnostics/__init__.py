"""How problems are worded and shown.

The wording knows pydantic's errors; the rendering knows frames and carets.
"""
