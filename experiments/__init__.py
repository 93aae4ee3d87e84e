"""Entry points, one a question: python -m experiments.NAME."""
