"""Looking after a cache: listing, verifying, removing, exporting and importing.

Who needs which rows is decided in runs/.
"""
