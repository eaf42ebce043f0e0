"""What is the matter with a set of preference pairs, found before a GPU-hour is spent on it.

book      every row as it lies there
images    every image once
groups    rows that belong together
looks     which images look alike though their bytes differ
findings  findings with examples, and how they are shown
labels    unusable rows, ties, pairs in several rows
copies    the same pictures in other bytes
crops     what is cut away, with buckets and without
sizes     pictures that don't suit the model
wording   long prompts, leaked prompts
numbers   label noise, charts
checks    all of these in order
margins   what a reward thinks of the labels
page      one HTML file that needs nothing else
"""

from smpo.data.audit.checks import audit
from smpo.data.audit.crops import Crops
from smpo.data.audit.expected import Expected
from smpo.data.audit.findings import Audit, Example, Finding
from smpo.data.audit.margins import Margins, margins_of
from smpo.data.audit.rows import AuditRows, audit_rows_of_table, read_audit_rows

__all__ = [
    "Audit",
    "AuditRows",
    "Crops",
    "Example",
    "Expected",
    "Finding",
    "Margins",
    "audit",
    "audit_rows_of_table",
    "margins_of",
    "read_audit_rows",
]  # fmt: skip
