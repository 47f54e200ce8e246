"""The command ``passenger-trio``: it parses arguments, calls, and prints. Everything else is
elsewhere.

Every subcommand is imported when it is called, and imports its needs as late as possible, because
the time from the command to the first answered request counts.
"""
