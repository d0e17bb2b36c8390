"""Critics of the joint action."""
