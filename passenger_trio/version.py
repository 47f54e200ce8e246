"""The version of the package. Every module may import this one; the package itself imports its
entry points.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
