"""The command line: statements in, readable tables out. Talks to a session as any program would."""
