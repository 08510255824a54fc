"""How far a row is from the rows that a head was fitted on, and from where on it is none of what the head knows."""
