"""Small worlds in which preference optimisation can be seen, measured and repeated on two cores."""
