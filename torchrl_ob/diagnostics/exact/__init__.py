"""Games that can be enumerated."""
