"""What training takes of memory at several image sizes, beside what export estimated."""
