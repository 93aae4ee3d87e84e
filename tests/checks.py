"""Checks that need a process of their own, because the number of devices is fixed at first use."""

import json
import traceback


def run_checks(namespace, target):
    """Run every check_NAME of a worker; the target gets {name: "" or what went wrong}."""
    report = {}
    for name, check in list(namespace.items()):
        if name.startswith("check_"):
            try:
                check()
                report[name] = ""
            except BaseException:  # also what pytest.raises ends a check with
                report[name] = traceback.format_exc()
    with open(target, "w") as out:
        json.dump(report, out)
