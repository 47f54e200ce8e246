"""Programs of the harness that run in the application's process: lint, and faults at a point of a
request.

A loader that finds ``HARNESS_WRAPPER`` in its environment, the path of this directory, has
the application wrapped by ``wrap.py`` (Python), ``wrap.rb`` (Ruby) or ``wrap.cjs`` (Node.js). What is here runs on every
interpreter of the loaders: it uses the standard library only, imports nothing of passenger_trio, and
keeps to Python 3.8, Ruby 2.6 and Node.js 16.

Three variables say what to do:

* ``HARNESS_LINT``: a file to which findings are appended, one JSON object a line;
* ``HARNESS_TIMES``: a file to which the application's time for each request is appended;
* ``HARNESS_FAULTS``: a directory of armed faults (``fault_points``).
"""
