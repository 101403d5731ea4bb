"""Errors, console, files, locks, durations, facts about the machine. Imports no other package of this library."""
