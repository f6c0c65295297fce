"""Training of the two GANs: one shared loop, exact resume, logs, grids."""
