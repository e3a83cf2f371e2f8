"""Tests of sandboxd.store."""
