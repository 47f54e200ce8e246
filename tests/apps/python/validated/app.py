"""Wraps another application in ``wsgiref.validate``; a warning of the validator is an error. VALIDATED is the directory of that application."""

import importlib.util
import os
import sys
import warnings
from wsgiref.validate import validator

warnings.simplefilter("error")
sys.path.insert(0, os.environ["VALIDATED"])
spec = importlib.util.spec_from_file_location("inner", os.path.join(os.environ["VALIDATED"], "app.py"))
inner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inner)
application = validator(inner.application)
