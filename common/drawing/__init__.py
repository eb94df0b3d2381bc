"""Pictures, their captions, and progress bars."""
