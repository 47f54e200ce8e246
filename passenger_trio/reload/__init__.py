"""A new configuration for a running server: ``reloading`` applies it. ``core.reload_plan`` decides what changes."""
