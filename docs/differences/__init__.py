"""The page of differences between the frameworks: what is measured, and the page that is made of it."""
