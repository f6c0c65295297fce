"""Export: the augmented dataset, real and released synthetic images with where each one comes from."""
