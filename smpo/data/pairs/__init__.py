"""From rows of a source to preference pairs: content ids, votes, ties, hold-outs."""
