"""A kitchen: a small domain of its own on which the language is tested. Nothing of it is in smpo."""
