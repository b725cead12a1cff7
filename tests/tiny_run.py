"""`tiny.tiny_config` as a file for --config: "tests/tiny_run.py:bare" or ":whole"; the data set is a flag."""

from tiny import tiny_config


def get_config(arg=None):
    return tiny_config("none", steps=20, bare=arg != "whole")
