"""Shots times seeds, one run after the other, and the table of them."""
