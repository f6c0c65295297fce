"""Networks, losses and training steps in pure torch: tensors in, tensors out, no files and no logging."""
