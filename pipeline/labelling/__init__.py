"""Whether more labelled images would help a head, and which."""
