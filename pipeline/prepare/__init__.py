"""From catalog to arrays: canonical orientation, resampling, bias correction, body masks, intensity maps, splits."""
