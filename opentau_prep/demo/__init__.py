"""Small made-up datasets and mixtures: to try the commands on, to test with, to measure with."""
