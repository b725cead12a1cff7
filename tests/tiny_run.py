"""`tiny.tiny_config` as a file for --config: "tests/tiny_run.py:bare", ":whole", ":whole-fsdp"; the data is a flag."""

from tiny import tiny_config


def get_config(arg=None):
    what, _, tactic = (arg or "bare").partition("-")
    config = tiny_config("none", steps=20, bare=what == "bare").unlock()
    if tactic == "fsdp":
        config.mesh = {"data": 2, "fsdp": -1}
        config.sharding = ((".*", "fsdp(fsdp)"),)
    return config.lock()
