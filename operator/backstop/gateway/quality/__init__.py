"""Answers judged after they were sent: drawn by chance, read in small steps, and held against what they were asked with."""
