"""Because this file is here, pytest lets the tests in the folders below import what they share: ``dummy_front``, ``failing_files``, ``held_clock``."""
