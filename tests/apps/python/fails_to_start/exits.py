import sys

sys.exit("usage: a command-line program")
