"""Help for tests against the real thing: packed functions, running daemons, the machine's inventory."""
