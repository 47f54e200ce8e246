"""The version of the package, in a module that every other one may import. The package itself
imports its entry points.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
