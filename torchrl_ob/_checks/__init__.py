"""What wrong input is told: key, shapes and remedy."""
