"""The augmentations: operations as values, their random decisions, and the resampling formula."""
