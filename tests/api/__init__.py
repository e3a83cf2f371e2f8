"""Tests of sandboxd.api."""
