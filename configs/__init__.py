"""Configs: get_config(variant) -> ConfigDict, one file an experiment."""
