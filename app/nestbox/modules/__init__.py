"""One file per XEP or RFC chapter; each declares what it implements."""
