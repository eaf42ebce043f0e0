"""Paired statistics: intervals, tests, designs with several seeds."""
