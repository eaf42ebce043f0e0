"""Small genuine pipelines, trained as a person trains large ones: from files, through the command line."""
