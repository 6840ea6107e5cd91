"""A delivery: the instances of one dispatch, brought to one node, and the parts of an attempt."""
