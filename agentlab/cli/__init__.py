"""The verbs of the command line: thin, each resolves its arguments, calls one function and prints."""
