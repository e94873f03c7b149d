"""The application: command line, attempt loop, runs on disk, results and viewer."""
