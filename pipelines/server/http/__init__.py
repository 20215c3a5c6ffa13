"""HTTP: the application, admission, errors and streams. Nothing about models."""
