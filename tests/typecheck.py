"""The type checker the import hook of conftest.py applies: beartype, reading float as PEP 484 does.

There an int is accepted where a float is asked for, so that `tolerance=0` is not an error.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
