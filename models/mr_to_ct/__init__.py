"""CycleGAN that translates MR slices into pseudo-CT slices, from unpaired, paired or mixed examples."""
