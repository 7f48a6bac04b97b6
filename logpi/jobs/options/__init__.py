"""Groups of arguments that jobs share, and the parser that reads them from a command line."""
