"""What does learning by reconstruction put into a representation, and does it help perception?"""

__version__ = "0.1.0"
