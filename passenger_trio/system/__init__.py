"""One kernel facility per file. These modules know nothing of the domain: no group, no process
pool, no request.

They hold descriptors and make system calls. Their callers decide.
"""
