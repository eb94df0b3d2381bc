"""Checks that versions of one network in several frameworks compute the same."""
