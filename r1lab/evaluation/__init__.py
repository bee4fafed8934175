"""What a policy can do, measured on held-out problems, with intervals."""
