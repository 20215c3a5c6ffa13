"""Small functions and classes that everybody writes once, as nano learns them (training/variants.py).

Written for this project and part of it (Apache-2.0). Every function is tested by the example in its docstring. What
follows two underscores in a name tells ways to do the same thing apart and is cut off for training.
"""
