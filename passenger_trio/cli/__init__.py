"""The command ``passenger-trio``: it parses, calls and prints, and knows nothing else.

Every subcommand is imported when it is called and not before, and imports what it needs as late as it can:
the time from the command to the first answered request counts.
"""
