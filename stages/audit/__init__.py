"""What cached rows tell of a data set: labels that little speaks for, images unlike the rest of their class."""
