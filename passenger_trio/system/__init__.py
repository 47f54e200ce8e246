"""One kernel facility a file. No word of the domain occurs here: no group, no process pool, no request.

These modules hold descriptors and make system calls; whoever uses them decides.
"""
