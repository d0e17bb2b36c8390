"""What a batch of rollouts tells about the variance of the gradient."""
