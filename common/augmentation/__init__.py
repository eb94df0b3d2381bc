"""The augmentations: operations as values, every random decision, and the resampling formula."""
