"""The version of the package, where every module may import it: the package itself imports its faces."""

__all__ = ["__version__"]

__version__ = "0.1.0"
