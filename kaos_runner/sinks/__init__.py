"""Sinks read events and write them down: for a person, for a record, for CI.

Of ours they import `kaos_runner.events` only.
"""
