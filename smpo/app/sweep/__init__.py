"""`smpo sweep`: prepare, estimate, begin, work, conclude."""
