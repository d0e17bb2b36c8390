"""Properties of the library over generated cases, against slow loops and dense references."""
