"""The click commands: options, exit codes, and what is printed through show/. Does no work itself."""
