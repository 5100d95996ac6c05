"""The report: finished runs found, checked, and shown as one page."""
